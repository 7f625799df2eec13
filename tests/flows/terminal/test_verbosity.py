"""--quiet and --verbose."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from flows.terminal.verbosity import choose_verbosity, show_library_logs, traceback_to_show
from tests.support.fuzz import run_tld
from tests.support.small import TINY

SECRET = "https://user:secret@example.org/x"


@pytest.fixture(autouse=True)
def _normal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TLD_TRACEBACK", "")
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    choose_verbosity(quiet=False, verbose=False)


def log_something() -> None:
    logging.getLogger("a.library").info("reading %s", SECRET)
    logging.getLogger("httpx").info("HTTP Request")


def test_verbose_prints_the_logs_of_libraries_without_credentials(
    capsys: pytest.CaptureFixture[str],
) -> None:
    choose_verbosity(quiet=False, verbose=True)
    show_library_logs()
    log_something()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("a.library: reading https://example.org/x")
    assert os.environ["TLD_TRACEBACK"], "helper processes hide nothing"


def test_otherwise_they_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_library_logs()
    log_something()
    assert not capsys.readouterr().err


def test_verbose_shows_where_an_error_was_raised() -> None:
    assert traceback_to_show(ValueError("x")) == ""
    choose_verbosity(quiet=False, verbose=True)
    with pytest.raises(ValueError, match="invalid literal") as raised:
        int("a mistake")
    assert 'int("a mistake")' in traceback_to_show(raised.value)


@pytest.mark.parametrize("command", ["run", "download", "encode", "train", "evaluate", "distill"])
def test_a_command_prints_less_or_more(command: str) -> None:
    ended = run_tld(command, TINY, "--quiet", "--verbose")
    assert ended.code == 2
    assert ended.output.endswith("choose one of them\n")


def test_verbose_shows_the_traceback_of_a_mistake_too() -> None:
    ended = run_tld("run", TINY, "train.steps=0", "--verbose")
    assert ended.code == 2
    assert "Traceback" in ended.output
    assert "\ntld: invalid settings" in ended.output
