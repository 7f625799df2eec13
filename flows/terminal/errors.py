"""Explanations of errors with causes outside of tld, and what a user can do about them.

Such causes are a full or read-only disk, a server that is gone, and a machine that has run out of
file descriptors, threads or memory. Neither Prefect nor MLflow is imported here.
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

from pipeline.compute.resource_limits import shortage_in_text, shortage_of

_RESUME = "Finished work is kept: run the same command to resume."
_FULL = "the disk is full: free some space"
_LEAST_ROOM = 1 << 20  # bytes
_READ_ONLY = "the disk is read-only: make it writable"
_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EFBIG: "a file became larger than this process may write: raise `ulimit -f`",
    errno.EIO: "the disk or the network file system has failed: see the system log",
}
_NO_PATH = {
    errno.ENAMETOOLONG: "a name in it is longer than the file system allows",
    errno.ELOOP: "its links form a loop",
    errno.ENOTDIR: "a part of it is a file, not a folder",
}
_SYMLINK_LOOP = "Symlink loop from "  # a message of pathlib
_SHOWN_CHARS = 100  # at each end of a long path
_BY_TEXT = {  # for errors that have only the text of another error: of a database or a process
    **{os.strerror(number): remedy for number, remedy in _BY_NUMBER.items()},
    "disk is full": _FULL,  # SQLite, in the MLflow or Prefect of the workspace
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
    """The cause of an unexpected error outside of tld, and how to continue; None if there is no
    such cause."""
    for one in _chain(error):
        if cause := _cause(one):
            return f"{cause}.\n{_RESUME}"
    return None


def unusable_path(error: BaseException) -> str | None:
    """Which path cannot be used, and why; None if the error is another."""
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
    """A path, shortened to both ends if it is too long to read."""
    return (
        path if len(path) <= 2 * _SHOWN_CHARS else f"{path[:_SHOWN_CHARS]} … {path[-_SHOWN_CHARS:]}"
    )


def _cause(error: BaseException) -> str | None:
    message = str(error).strip()
    if shortage := shortage_of(error):
        return shortage
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return f"{_BY_NUMBER[error.errno]} ({message})"
    if isinstance(error, PermissionError) and (refused := _refused(error)):
        return refused
    for line in (*message.splitlines(), *_errors_of_workers(error)):
        for words, remedy in _BY_TEXT.items():
            if words in line:
                return f"{remedy} ({line.strip()})"
        if shortage := shortage_in_text(line):
            return shortage
    if type(error).__name__ == "PrefectServerError":
        return message
    if isinstance(error, Exception) and _is_prefect_server_lost(error):
        what = message.splitlines()[0] if message else type(error).__name__
        return f"the Prefect server no longer answers, or answers with errors ({what})"
    return None


def _refused(error: PermissionError) -> str | None:
    """Which file or folder this user may not use, and who can change that; None if the error names
    none."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    for place in (path, *path.absolute().parents):
        try:
            status = place.stat()
        except OSError:
            continue  # it does not exist, or is in a folder that this user may not open
        if need := _missing_right(place, folder=stat.S_ISDIR(status.st_mode)):
            mode, owner = stat.filemode(status.st_mode), _user(status.st_uid)
            return (
                f"{place} may not be {need} by {_user(os.geteuid())} (mode {mode}, owner {owner}): "
                f"ask {owner} to change the mode, or use another user"
            )
    return None


def _missing_right(place: Path, *, folder: bool) -> str | None:
    """What this user may not do with a file or folder."""

    def allowed(access: int) -> bool:
        return os.access(place, access, effective_ids=os.access in os.supports_effective_ids)

    if not allowed(os.R_OK) or (folder and not allowed(os.X_OK)):
        return "read"
    return None if allowed(os.W_OK) else "written"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        return f"user {number}"


def _errors_of_workers(error: BaseException) -> Iterator[str]:
    """Errors in the note of an error of another process, which has no causes but a traceback as a
    note."""
    for note in getattr(error, "__notes__", ()):
        yield from _LAST_LINE.findall(note)


def prefect_is_lost(error: BaseException) -> bool:
    """Whether an error was caused by a Prefect server that is gone or hangs."""
    return any(isinstance(one, Exception) and _is_prefect_server_lost(one) for one in _chain(error))


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """A block that works in a workspace, with better errors.

    A Prefect server with its database in the workspace answers only "error 500" if the disk is
    full, so that is raised as OSError. A path that becomes unusable is raised as StageFailed, and
    not as the user's mistake, because it was usable at the start.
    """
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
            raise StageFailed(f"{why}.\n{_RESUME}") from error
        raise


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LEAST_ROOM
    except OSError:  # the folder is gone, and the original error says more
        return False


def _is_prefect_server_lost(error: Exception) -> bool:
    """Whether Prefect's client has lost its server, by the names of classes, because Prefect is not
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
    """An error and its causes."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain(one)
        error = error.__cause__ or error.__context__


class UserError(ValueError):
    """A mistake of the user; the message says what to change."""

    exit_code = 2
