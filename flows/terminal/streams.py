"""Standard output and standard error of a command: encoding, and readers that close early."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys


def fit_streams() -> None:
    """Make any text readable and printable: pipes and files use UTF-8 whatever the locale is, and
    characters that a terminal's encoding lacks are escaped."""
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def output_is_closed(error: Exception) -> bool:
    """Whether an error means that the reader of our output has closed it, as `head` does."""
    return isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (1, 2)))


def abandon_output() -> None:
    """Discard buffered output, so that the interpreter's last flush cannot fail."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLERR is always reported
    return any(event & select.POLLERR for _, event in poll.poll(0))
