"""Files that are whole or absent, whatever ends their writer: an error, a kill, a full disk, a
power cut.

Every file gets the mode that the umask gives: some libraries make files that only their owner may
read. Knows nothing of what files mean.
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

_NO_FOLDER_FLUSH = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EACCES,
}  # of file systems that cannot flush a folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name beside `path`, with the same ending. At the end of the block
    it takes the place of `path`; after an error it is deleted and `path` is as it was."""
    unfinished = _unfinished(path)
    try:
        mode = _create(unfinished)
    except OSError as error:  # the other name says nothing to a user
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
    """Why no file can be written at `path`, as the system says it, or None. It is tried: permission
    bits do not know of read-only file systems, of root, or of names that are too long."""
    unfinished = _unfinished(path)
    try:
        _create(unfinished)
        unfinished.unlink()
    except OSError as error:
        return error.strerror
    return None


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Write a folder under another name beside `path`. At the end of the block it takes the place
    of `path`; after an error it is deleted and `path` is as it was."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
        scratch = Path(name)
        mode = _create(scratch / "mode")
        unfinished = scratch / "new"
        unfinished.mkdir()
        yield unfinished
        for parent, _, names in os.walk(unfinished):
            for file in (Path(parent) / name for name in names):
                _set_mode(file, mode)
                _flush(file)
            flush_folder(Path(parent))
        if path.exists():
            os.replace(path, scratch / "old")
        os.replace(unfinished, path)
        flush_folder(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file: readers see all of it or none."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def put_in_place(unfinished: Path, path: Path) -> None:
    """Rename a finished file of the same file system, so that a power cut leaves the old file or
    the new one: without the flush it may leave an empty one."""
    _flush(unfinished)
    os.replace(unfinished, path)
    flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, that a power cut does not take away with the files
    inside."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        flush_folder(folder.parent)


def delete_folder(path: Path) -> None:
    """Delete a folder. Of a link to one only what the folder holds, so that it is filled there
    again: the disk behind the link was chosen."""
    if not path.is_symlink():
        shutil.rmtree(path)
        return
    for child in path.iterdir():
        if child.is_dir():
            delete_folder(child)
        else:
            child.unlink()


def flush_folder(path: Path) -> None:
    """Make renames, new files and deletions in a folder outlast a power cut."""
    try:
        _flush(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def unfinished_files(folder: Path) -> Iterator[Path]:
    """Files in a folder whose writer was killed, where none writes there now."""
    yield from folder.glob(".*.partial*")
    yield from folder.glob("*.partial")  # named by earlier versions


def _unfinished(path: Path) -> Path:
    """A name that nobody uses beside `path`, with the same ending."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")


def _create(path: Path) -> int:
    """Create a file; the mode that it got. The umask itself cannot be read without changing it,
    which other threads would notice."""
    with path.open("xb") as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def _set_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
