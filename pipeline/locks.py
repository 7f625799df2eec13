"""One process at a time: a file that is locked while work goes on. Knows nothing of what the work is."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psutil  # type: ignore[import-untyped]

LOCK_NAME = ".lock"  # in an output folder: who holds it works there


class StillHeld(RuntimeError):
    """Another process works where this one wants to."""


@contextmanager
def held(path: Path, patience_s: float) -> Iterator[int]:
    """Hold the lock of a file, whose descriptor children may inherit: it is free when the last of them has ended, even
    where we were killed. A process that is ending is given time. The folder is made where it is gone. Raises
    StillHeld."""
    with _locked(path, patience_s) as file:
        with suppress(OSError):  # a full disk must not keep anyone from making room
            file.truncate(0)
            os.write(file.fileno(), f"{socket.gethostname()}, process {os.getpid()}".encode())
        yield file.fileno()


def is_alive(pid: str) -> bool:
    """Whether a process of this machine runs, by its number as it was written down."""
    return pid.isdigit() and psutil.pid_exists(int(pid))


def _locked(path: Path, patience_s: float) -> TextIO:
    give_up = time.monotonic() + patience_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                return file
            file.close()  # the holder deleted it, with its folder, before it let go
        except BlockingIOError:
            file.close()
            if time.monotonic() > give_up:
                raise StillHeld(f"another process still holds {path}{_by(path)}; wait for it, or stop it") from None
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
        holder = path.read_text()
    return f" ({holder})" if holder else ""
