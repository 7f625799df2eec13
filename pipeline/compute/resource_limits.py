"""Shortages of this machine or process: file descriptors, threads, processes and memory.

An error that stems from a shortage is recognized as such, and explained with what to do about it.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENOUGH_DESCRIPTORS = 65_536  # more than any part of a run needs
_FEWER = "lower download.workers, download.threads, encode.workers or a batch_size"
_NO_THREAD = "can't start new thread"
# Messages of libraries when memory runs out. oneDNN, which computes for torch on a CPU, names only
# the primitive that it could not create.
_NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|an(?:'t|not) allocate memory|could not (?:create|execute) a "
    r"primitive(?! desc)"
)
_NO_LIBRARY = "failed to map segment"  # of a shared object, in memory
_MEMORY = (
    "memory ran out: free some, raise its limit (`ulimit -v`, a container's or job's limit), or "
    f"{_FEWER}"
)
_LIBRARY = (
    f"{_MEMORY}; if the library's folder is mounted noexec, set TMPDIR and TRITON_CACHE_DIR to "
    "another one"
)


class Shortage(RuntimeError):
    """This machine ran out of something; the message says of what, and the remedy."""

    exit_code = 1


def shortage_of(error: BaseException) -> str | None:
    """What the machine ran out of, and the remedy, if this error says so; otherwise None."""
    if isinstance(error, Shortage):
        return str(error)
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
        return _MEMORY
    if isinstance(error, ImportError | OSError) and _NO_LIBRARY in str(error):
        return _LIBRARY
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return _processes()
    if isinstance(error, socket.gaierror):
        return _MEMORY if error.errno == socket.EAI_MEMORY else None
    return _by_number(error.errno) if isinstance(error, OSError) else None


def _by_number(number: int | None) -> str | None:
    match number:
        case errno.EMFILE:
            return (
                f"too many open files: this process may open {descriptor_limit()} at a time; raise "
                f"the limit with `ulimit -n {max(1024, 2 * descriptor_limit())}`, or {_FEWER}"
            )
        case errno.ENFILE:
            return (
                "too many open files on this machine: end other programs, raise fs.file-max, or "
                f"{_FEWER}"
            )
        case errno.ENOMEM:
            return _MEMORY
        case errno.ENOBUFS:
            return (
                "this machine has no buffers for more network connections: end other programs, or "
                f"{_FEWER}"
            )
        case errno.EAGAIN:
            return _processes()
    return None


def shortage_in_text(text: str) -> str | None:
    """The same for an error of another process of which only the text is known."""
    if _NO_MEMORY.search(text):
        return _MEMORY
    if _NO_LIBRARY in text:
        return _LIBRARY
    if _NO_THREAD in text or "Resource temporarily unavailable" in text:
        return _processes()
    if "Too many open files" in text:
        return _by_number(errno.EMFILE)
    return None


@contextmanager
def own_shortage_raised() -> Iterator[None]:
    """Raise Shortage instead of an error in the block that stems from a shortage."""
    try:
        yield
    except Exception as error:
        if shortage := shortage_of(error):
            raise Shortage(shortage) from error
        raise


def descriptor_limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptor_limit() -> None:
    """Raise the limit on open files as far as the system allows; child processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = (
        _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    )
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def free_descriptors() -> int:
    """How many more files this process may open."""
    limit = descriptor_limit()
    if limit == resource.RLIM_INFINITY:
        return _ENOUGH_DESCRIPTORS
    try:
        return max(0, limit - sum(1 for _ in Path("/dev/fd").iterdir()))
    except OSError:
        return 0


def check_descriptors() -> None:
    """Raise the system's error if no file descriptor is left."""
    os.close(os.open(os.devnull, os.O_RDONLY))


def _processes() -> str:
    return (
        "no more threads or processes may be started: raise their limit (`ulimit -u`, a "
        f"container's or job's limit), or {_FEWER}"
    )
