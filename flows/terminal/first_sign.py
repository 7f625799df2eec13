"""A spinner from the start of a command until it prints something, for commands that import large
libraries first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from flows.terminal.verbosity import is_quiet

_spinners: list[Live] = []  # at most one


@contextlib.contextmanager
def first_sign(text: str = "starting …") -> Iterator[None]:
    """Show the spinner on a terminal, in place of an earlier one, at most for the length of the
    block or, as a decorator, of the command."""
    end_first_sign()
    # Not a Terminal, whose output ends the spinner. What libraries print is not redirected: those
    # that are imported meanwhile would keep the redirected stream.
    console = Console(stderr=True)
    if console.is_terminal and not is_quiet():
        spinner = Live(
            Spinner("dots", text),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        _spinners.append(spinner)
        spinner.start(refresh=True)
    try:
        yield
    finally:
        end_first_sign()


def end_first_sign() -> None:
    """Remove the spinner, before anything else is shown."""
    while _spinners:
        _spinners.pop().stop()
