"""Causes that lie outside of us, and what a person can do about them: a full disk, one that takes
nothing, a server that is gone, a machine that has no more descriptors, threads or memory. Imports
neither Prefect nor MLflow.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.compute.resource_limits import shortage_in_text, shortage_of

if TYPE_CHECKING:
    pass

_ONWARD = "What is finished is kept: the same command goes on from it."
_FULL = "the disk is full: make room there"
_LEAST_ROOM = 1 << 20  # bytes
_READ_ONLY = "the disk takes nothing: make it writable"
_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EFBIG: "a file became larger than this process may write: raise `ulimit -f`",
    errno.EIO: "the disk or the network file system fails: look into the system's log",
}
_NO_PATH = {
    errno.ENAMETOOLONG: "a name in it is longer than the file system takes",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOTDIR: "a part of it is a file, not a folder",
}
_SYMLINK_LOOP = "Symlink loop from "  # of pathlib
_SHOWN_CHARS = 100  # of each end of a long path
_BY_WORDS = {  # of errors that carry another's text alone: databases, other processes
    **{os.strerror(number): remedy for number, remedy in _BY_NUMBER.items()},
    "disk is full": _FULL,  # SQLite, of the workspace's MLflow or Prefect
    "attempt to write a readonly database": _READ_ONLY,
}
_LAST_LINE = re.compile(
    r"^[\w.]+(?:Error|Exception|Died|Failed): .*$", re.MULTILINE
)  # of a traceback
_LOST = (
    "ConcurrencySlotAcquisitionError",
    "AcquireConcurrencySlotTimeoutError",
    "PrefectHTTPStatusError",
)


def external_cause(error: BaseException) -> str | None:
    """What an unexpected error comes from, where that is not in our hands, and how to go on; else
    None."""
    for one in _chain(error):
        if cause := _cause(one):
            return f"{cause}.\n{_ONWARD}"
    return None


def unusable_path(error: BaseException) -> str | None:
    """Which path leads nowhere, and why; else None."""
    for one in (error, error.__cause__):
        if (
            isinstance(one, OSError)
            and one.errno in _NO_PATH
            and isinstance(one.filename, str | bytes | os.PathLike)
        ):
            return f"cannot use {_shortened(os.fsdecode(one.filename))}: {_NO_PATH[one.errno]}"
        if isinstance(one, RuntimeError) and str(one).startswith(_SYMLINK_LOOP):
            path = str(one).removeprefix(_SYMLINK_LOOP).strip("'")
            return f"cannot use {_shortened(path)}: {_NO_PATH[errno.ELOOP]}"
    return None


def _shortened(path: str) -> str:
    """Both ends of a path that is too long to be read."""
    return (
        path if len(path) <= 2 * _SHOWN_CHARS else f"{path[:_SHOWN_CHARS]} … {path[-_SHOWN_CHARS:]}"
    )


def _cause(error: BaseException) -> str | None:
    said = str(error).strip()
    if lack := shortage_of(error):
        return lack
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return f"{_BY_NUMBER[error.errno]} ({said})"
    if isinstance(error, PermissionError) and (refused := _refused(error)):
        return refused
    for line in (*said.splitlines(), *_told_by_workers(error)):
        for words, remedy in _BY_WORDS.items():
            if words in line:
                return f"{remedy} ({line.strip()})"
        if lack := shortage_in_text(line):
            return lack
    if type(error).__name__ == "PrefectServerError":
        return said
    if isinstance(error, Exception) and _is_of_prefects_server(error):
        what = said.splitlines()[0] if said else type(error).__name__
        return f"the Prefect server does not answer any more, or not as it should ({what})"
    return None


def _refused(error: PermissionError) -> str | None:
    """Which file or folder this user may not use, and who may change that; None where the error
    names none."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    for place in (path, *path.absolute().parents):
        try:
            status = place.stat()
        except OSError:
            continue  # not there, or in a folder that this user may not open
        if need := _lacking(place, stat.S_ISDIR(status.st_mode)):
            mode, owner = stat.filemode(status.st_mode), _user(status.st_uid)
            return (
                f"{place} may not be {need} by {_user(os.geteuid())} (mode {mode}, owner {owner}): "
                f"ask {owner} to change its mode, or work as another user"
            )
    return None


def _lacking(place: Path, folder: bool) -> str | None:
    """What this user may not do there."""

    def allowed(what: int) -> bool:
        return os.access(place, what, effective_ids=os.access in os.supports_effective_ids)

    if not allowed(os.R_OK) or (folder and not allowed(os.X_OK)):
        return "read"
    return None if allowed(os.W_OK) else "written"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        return f"user {number}"


def _told_by_workers(error: BaseException) -> Iterator[str]:
    """An error of another process comes without its causes, but with a note of its traceback."""
    for note in getattr(error, "__notes__", ()):
        yield from _LAST_LINE.findall(note)


def prefect_is_lost(error: BaseException) -> bool:
    """Whether an error comes of a Prefect server that is gone or hangs."""
    return any(isinstance(one, Exception) and _is_of_prefects_server(one) for one in _chain(error))


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """The time in which a workspace is worked on. Raises what a server of Prefect lacks that has
    its database there: it says "error 500" and no more. A path that leads nowhere is no user's
    mistake any more: it was good at the start."""
    from pipeline.stages.contract import StageFailed

    try:
        yield
    except Exception as error:
        if prefect_is_lost(error) and _is_full(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        if (
            not hasattr(error, "exit_code")
            and not external_cause(error)
            and (why := unusable_path(error))
        ):
            raise StageFailed(f"{why}.\n{_ONWARD}") from error
        raise


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LEAST_ROOM
    except OSError:  # the folder is gone: the error at hand says more
        return False


def _is_of_prefects_server(error: Exception) -> bool:
    """Whether Prefect's client lost its server. Only its classes are looked at: they are not
    imported here."""
    name, module = type(error).__name__, type(error).__module__
    if module.startswith("httpx"):
        return any(
            word in name
            for word in ("Connect", "Timeout", "ReadError", "WriteError", "ProtocolError")
        )
    return (module.startswith("prefect.") and name in _LOST) or str(error).startswith(
        "Failed to reach API at"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain(one)
        error = error.__cause__ or error.__context__


class UserError(ValueError):
    """Something to be done differently; the message says how."""

    exit_code = 2
