"""The command line of a process."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flows.cli.app import main
from pipeline.config import command_line
from pipeline.config.command_line import (
    remember_command,
    typed_at,
    typed_command,
)


@pytest.fixture(autouse=True)
def _no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_typed", [])


def test_a_process_that_is_no_command_has_none() -> None:
    assert typed_command() == ""
    assert typed_at() is None


def test_words_are_quoted_and_secrets_hidden() -> None:
    remember_command(["run", "my run.yaml", "download.urls=https://me:canary@host/a.csv"])
    assert typed_command() == "tld run 'my run.yaml' download.urls=https://host/a.csv"


def test_the_command_line_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    with pytest.raises(SystemExit):
        main(["config", "tiny", "train.lr=2e-3"])
    assert "lr: 0.002" in capsys.readouterr().out
    assert typed_command() == "tld config tiny train.lr=2e-3"
    assert before <= (typed_at() or before)
    assert typed_at() is not None
