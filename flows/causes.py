"""Causes that lie outside of us, and what a person can do about them: a full disk, one that takes nothing, a server
that is gone. Imports neither Prefect nor MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ONWARD = "What is finished is kept: the same command goes on from it."
_REMEDIES = {
    "No space left on device": "the disk is full: make room there",
    "Disk quota exceeded": "the disk is full: make room there",
    "disk is full": "the disk is full: make room there",  # SQLite, of the workspace's MLflow or Prefect
    "Read-only file system": "the disk takes nothing: make it writable",
    "attempt to write a readonly database": "the disk takes nothing: make it writable",
    "can't start new thread": "no more threads or processes are allowed: raise `ulimit -u` or the container's limit "
    "of processes, or lower download.threads and the workers",
    "Cannot allocate memory": "there is no memory left: end other programs, or lower the workers",
}

_CREDENTIALS = re.compile(r"(?<=://)[^/\s'\"]+@")


def without_secrets(text: str) -> str:
    """A text whose addresses tell no user and no password: clients tell in their errors what they asked."""
    return _CREDENTIALS.sub("", text)


def cause_outside(error: BaseException) -> str | None:
    """What an unexpected error comes from, where that is not in our hands, and how to go on; else None."""
    for one in _chain(error):
        # What a worker raised has its traceback in a note: a library may hide the first error in it.
        said = "\n".join([str(one), *getattr(one, "__notes__", [])]).strip()
        for words, remedy in _REMEDIES.items():
            if words in said:
                line = next(line for line in said.splitlines() if words in line)
                return f"{remedy} ({line.strip()}).\n{_ONWARD}"
        if type(one).__name__ == "PrefectServerError":
            return f"{one}.\n{_ONWARD}"
        if type(one).__module__.startswith("httpx") and "Connect" in type(one).__name__:
            return f"the Prefect server does not answer any more ({said}).\n{_ONWARD}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
