"""Atomic writes of files and folders: they are complete or absent, whatever stops their writer (an
error, a kill, a full disk, a power cut).

Every file gets its mode from the umask, because some libraries create files that only their owner
may read.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The errors of file systems that cannot flush a folder.
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}


@contextmanager
def replacing(path: Path, largest_mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix, to write a file to. At the end of
    the block the file replaces `path`. After an error it is deleted and `path` is unchanged. From
    its first byte its mode is `largest_mode` without what the umask takes away."""
    unfinished = _unfinished(path)
    try:
        mode = _create(unfinished, largest_mode)
    except OSError as error:  # name the file that the user knows, not the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield unfinished
        _set_mode(unfinished, mode)
        put_in_place(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_problem(path: Path) -> str | None:
    """The system's reason why no file can be written at `path`, or None.

    It tries to write one, because permission bits say nothing about read-only file systems, the
    root user, or names that are too long.
    """
    unfinished = _unfinished(path)
    try:
        _create(unfinished)
        unfinished.unlink()
    except OSError as error:
        return error.strerror
    return None


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` to write to. At the end of the block it replaces
    `path`. After an error it is deleted and `path` is unchanged."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
        scratch = Path(name)
        mode = _create(scratch / "mode")
        unfinished = scratch / "new"
        unfinished.mkdir()
        yield unfinished
        for parent, _, names in os.walk(unfinished):
            for file in (Path(parent) / name for name in names):
                _set_mode(file, mode)
                flush(file)
            flush_folder(Path(parent))
        if path.exists():
            os.replace(path, scratch / "old")
        os.replace(unfinished, path)
        flush_folder(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file atomically: readers see all of it or none."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def put_in_place(unfinished: Path, path: Path) -> None:
    """Rename a finished file to `path` on the same file system. A power cut leaves either the old
    file or the new one, because the file is flushed first; otherwise it could leave an empty
    file."""
    flush(unfinished)
    os.replace(unfinished, path)
    flush_folder(path.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it if the file system has no hard links. Sharing is safe because files
    are only replaced, never modified."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        with replacing(target) as unfinished:
            shutil.copyfile(source, unfinished)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and flush them so that they survive a power cut."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        flush_folder(folder.parent)


def delete_folder(path: Path) -> None:
    """Delete a folder. If it is a link, only the content of its target is deleted, so that new
    files go there again: the user chose the disk behind the link."""
    if not path.is_symlink():
        shutil.rmtree(path)
        return
    for child in path.iterdir():
        if child.is_dir():
            delete_folder(child)
        else:
            child.unlink()


def flush_folder(path: Path) -> None:
    """Make renames, new files and deletions in a folder survive a power cut."""
    try:
        flush(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def unfinished_files(folder: Path) -> Iterator[Path]:
    """The temporary files in a folder whose writer was killed. Call it only when nothing writes
    there."""
    yield from folder.glob(".*.partial*")
    yield from folder.glob("*.partial")  # named by earlier versions


def _unfinished(path: Path) -> Path:
    """An unused path beside `path` with the same suffix."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")


def _create(path: Path, largest_mode: int = 0o666) -> int:
    """Create an empty file and return its mode. The umask itself cannot be read without changing
    it, which would affect other threads."""
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, largest_mode)
    try:
        return stat.S_IMODE(os.fstat(file).st_mode)
    finally:
        os.close(file)


def _set_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def flush(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
