"""What is said of how to resume a command."""

from __future__ import annotations

import sys

import pytest

from flows.cli.app import main
from flows.terminal.resuming import resuming_command, same_command
from pipeline.config.command_line import remember_command
from pipeline.stages.contract import StageFailed


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
