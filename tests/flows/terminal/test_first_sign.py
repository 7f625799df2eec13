"""A command shows at once on a terminal that it has begun, and the spinner ends at its first
line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flows.terminal.console import console, say
from flows.terminal.first_sign import first_sign
from flows.terminal.progress import Progress
from tests.support.small import TINY
from tests.support.terminal import on_a_terminal

SPINNER = "starting …"


@pytest.mark.parametrize("words", [("run", TINY, "no.such=1"), ("sample", TINY, "--steps=0")])
def test_the_spinner_comes_first_and_leaves_the_errors_alone(words: tuple[str, ...]) -> None:
    shown = on_a_terminal(sys.executable, "-m", "flows.cli", *words)
    before, _, after = shown.partition("tld: ")
    assert SPINNER in before
    assert before.endswith("\x1b[2K"), "its line is erased"
    assert after
    assert SPINNER not in after


@pytest.mark.parametrize(
    ("words", "data"),
    [(("status", TINY, "--json"), "[\r\n  {"), (("catalog", "dropped", TINY), "stage,reason,row")],
)
def test_it_leaves_nothing_in_data_for_programs(
    words: tuple[str, ...], data: str, tmp_path: Path
) -> None:
    shown = on_a_terminal(sys.executable, "-m", "flows.cli", *words, f"root={tmp_path / 'data'}")
    before, _, after = shown.partition(data)
    assert SPINNER in before
    assert before.endswith("\x1b[2K"), "its line is erased"
    assert "\x1b" not in after


def test_it_shows_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with first_sign():
        assert SPINNER in capsys.readouterr().err


def say_something() -> None:
    say("a line")


def print_something() -> None:
    console.print("a line")


def show_a_bar() -> None:
    with Progress("a line"):
        pass


@pytest.mark.parametrize("show", [say_something, print_something, show_a_bar])
def test_it_ends_at_whatever_is_shown_first(
    show: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(show)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with first_sign():
        capsys.readouterr()
        show()
        shown = capsys.readouterr()
        assert "\x1b[2K" in shown.err, "its line is erased"
        assert "a line" in shown.out + shown.err
    assert not capsys.readouterr().err, "nothing was left to erase"


def test_it_shows_nowhere_but_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with first_sign():
        pass
    assert not capsys.readouterr().err
