"""Standard output and standard error of a command: their encoding, and readers that leave early."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys


def fit_streams() -> None:
    """Let any text be read and printed: what programs write and read is UTF-8 whatever the locale
    says, and what a terminal's encoding cannot say is spelled out."""
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def output_is_closed(error: Exception) -> bool:
    """Whether an error is that whoever read our output has left, as `head` does."""
    return isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (1, 2)))


def abandon_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's last flush cannot fail."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLERR is told unasked
    return any(event & select.POLLERR for _, event in poll.poll(0))
