"""One process at a time: a file that is locked while work goes on. Knows nothing of what the work
is."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK_NAME = ".lock"  # in an output folder: who holds it works there


class LockTimeout(RuntimeError):
    """Another process works where this one wants to."""


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[int]:
    """Hold the lock of a file, whose descriptor children may inherit: it is free when the last of
    them has ended, even where we were killed. A process that is ending is given time. The folder is
    made where it is gone. Raises LockTimeout."""
    with locked(path, timeout_s) as file:
        with suppress(OSError):  # a full disk must not keep anyone from making room
            file.truncate(0)
            os.write(file.fileno(), f"{socket.gethostname()}, process {os.getpid()}".encode())
        yield file.fileno()


def try_lock(path: Path) -> TextIO | None:
    """A file whose lock is held until it is closed; None if another process holds it, or if it is
    gone."""
    try:
        file = path.open("r+", encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if not _is_at(path, file):
        file.close()
        return None
    return file


def locked(path: Path, timeout_s: float) -> TextIO:
    """A file to append to, made where there is none, whose lock is held until it is closed. Raises
    LockTimeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                return file
            file.close()  # the holder deleted it, with its folder, before it let go
        except BlockingIOError:
            file.close()
            if time.monotonic() > deadline:
                raise LockTimeout(
                    f"another process still holds {path}{_by(path)}; wait for it, or stop it"
                ) from None
            time.sleep(0.2)


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _by(path: Path) -> str:
    """Who holds a lock, where the holder has said so: a disk may be shared by machines."""
    holder = ""
    with suppress(FileNotFoundError):  # deleted just now
        holder = path.read_text(encoding="utf-8")
    return f" ({holder})" if holder else ""
