"""File locks that let only one process at a time work in a folder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK_NAME = ".lock"  # in an output folder; its holder may write there


class LockTimeout(RuntimeError):
    """Another process still holds the lock."""


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[int]:
    """Hold the lock of a file while the block runs. Yields the file descriptor.

    Child processes may inherit the descriptor: the lock is released when the last of them has
    ended, even if this process was killed. A missing folder is created. Raises LockTimeout if
    another process holds the lock for longer than `timeout_s`.
    """
    with locked(path, timeout_s) as file:
        with suppress(OSError):  # on a full disk, commands that delete files must still work
            file.truncate(0)
            os.write(file.fileno(), holder_name(socket.gethostname(), os.getpid()).encode())
        yield file.fileno()


def holder_name(host: str, pid: int) -> str:
    """The holder of a lock, as its file names it."""
    return f"{host}, process {pid}"


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file. Others who ask at the same time do not count."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def try_lock(path: Path) -> TextIO | None:
    """Open a file and lock it until it is closed. Returns None if another process holds the lock or
    the file does not exist."""
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
    """Open a file for appending, create it if necessary, and lock it until it is closed. Raises
    LockTimeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        except (FileExistsError, FileNotFoundError):
            # Another process deletes the folder at this moment, unless it is a file.
            if path.parent.is_file() or time.monotonic() > deadline:
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                return file
            file.close()  # the holder deleted it, with its folder, before it released the lock
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
    """The holder of a lock (host and process) in parentheses, if the file names it. The host
    matters because machines may share a disk."""
    holder = ""
    with suppress(FileNotFoundError):  # deleted just now
        holder = path.read_text(encoding="utf-8")
    return f" ({holder})" if holder else ""
