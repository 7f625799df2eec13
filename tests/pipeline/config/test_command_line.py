"""The command line of a process."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from flows.cli.app import main
from pipeline.config import command_line
from pipeline.config.command_line import (
    remember_command,
    resuming_command,
    same_command,
    typed_at,
    typed_command,
)
from pipeline.stages.contract import StageFailed


@pytest.fixture(autouse=True)
def _no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_typed", [])


def test_a_process_that_is_no_command_has_none() -> None:
    assert typed_command() == ""
    assert typed_at() is None


def test_words_are_quoted_and_secrets_hidden() -> None:
    remember_command(["run", "my run.yaml", "download.urls=https://me:canary@host/a.csv"])
    assert typed_command() == "tld run 'my run.yaml' download.urls=https://host/a.csv"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "tiny", "--force", "train", "--until", "train", "--force=encode"],
        ["run", "--force", "train", "tiny", "--until", "train"],
        ["train", "--force", "tiny", "--until", "train"],
    ],
)
def test_what_resumes_a_command_does_not_force(words: list[str]) -> None:
    remember_command(words)
    begun = ("train", "encode")
    assert resuming_command(begun) == f"tld {words[0]} tiny --until train"
    assert sorted(resuming_command().split()) == sorted(["tld", *words])
    assert same_command() == "the same command, without --force for stages that had begun,"
    remember_command(["run", "tiny", "--force", "encode", "--force=train"])
    assert resuming_command({"download", "encode"}) == "tld run tiny --force=train"
    remember_command(["run", "tiny", "--", "--force"])
    assert resuming_command() == "tld run tiny -- --force"
    assert same_command() == "the same command"
    remember_command(["run", "tiny", "download.urls=https://me:canary@host/a.csv"])
    assert resuming_command() == "", "which would not work as it is shown"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StageFailed("run the same command")])
def test_what_is_said_at_the_end_of_a_forced_run_does_not_begin_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("flows.cli.app.app", fail)
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit):
        main(["run", "tiny", "--force", "train"])
    assert (
        "run the same command, without --force for stages that had begun" in capsys.readouterr().err
    )


def test_the_command_line_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    with pytest.raises(SystemExit):
        main(["config", "tiny", "train.lr=2e-3"])
    assert "lr: 0.002" in capsys.readouterr().out
    assert typed_command() == "tld config tiny train.lr=2e-3"
    assert before <= (typed_at() or before)
    assert typed_at() is not None
