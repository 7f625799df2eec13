"""Causes that lie outside of us, and what a person can do about them: a full disk, one that takes nothing, a server
that is gone, a machine that has no more descriptors, threads or memory. Imports neither Prefect nor MLflow.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.shortage import shortage_in_text, shortage_of

_ONWARD = "What is finished is kept: the same command goes on from it."
_FULL = "the disk is full: make room there"
_READ_ONLY = "the disk takes nothing: make it writable"
_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EFBIG: "a file became larger than this process may write: raise `ulimit -f`",
    errno.EIO: "the disk or the network file system fails: look into the system's log",
}
_BY_WORDS = {  # of errors that carry another's text alone: databases, other processes
    **{os.strerror(number): remedy for number, remedy in _BY_NUMBER.items()},
    "disk is full": _FULL,  # SQLite, of the workspace's MLflow or Prefect
    "attempt to write a readonly database": _READ_ONLY,
}
_LAST_LINE = re.compile(r"^[\w.]+(?:Error|Exception|Died|Failed): .*$", re.MULTILINE)  # of a traceback


def cause_outside(error: BaseException) -> str | None:
    """What an unexpected error comes from, where that is not in our hands, and how to go on; else None."""
    for one in _chain(error):
        if cause := _cause(one):
            return f"{cause}.\n{_ONWARD}"
    return None


def _cause(error: BaseException) -> str | None:
    said = str(error).strip()
    if lack := shortage_of(error):
        return lack
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return f"{_BY_NUMBER[error.errno]} ({said})"
    if isinstance(error, PermissionError) and error.filename:
        return _not_permitted(error)
    for line in (*said.splitlines(), *_told_by_workers(error)):
        for words, remedy in _BY_WORDS.items():
            if words in line:
                return f"{remedy} ({line.strip()})"
        if lack := shortage_in_text(line):
            return lack
    if type(error).__name__ == "PrefectServerError":
        return said
    if type(error).__module__.startswith("httpx") and "Connect" in type(error).__name__:
        return f"the Prefect server does not answer any more ({said})"
    return None


def _not_permitted(error: PermissionError) -> str:
    """Who may do what, where a file or a folder refuses us."""
    path = Path(os.fsdecode(error.filename))
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    try:
        owner: str | int = there.owner()
    except (OSError, KeyError):
        owner = "another user"
    return f"no permission for {path} ({there} belongs to {owner}): change its owner or its mode"


def _told_by_workers(error: BaseException) -> Iterator[str]:
    """An error of another process comes without its causes, but with a note of its traceback."""
    for note in getattr(error, "__notes__", ()):
        yield from _LAST_LINE.findall(note)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain(one)
        error = error.__cause__ or error.__context__
