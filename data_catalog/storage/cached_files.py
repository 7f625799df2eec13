"""Local copies of files that live in object storage.

A copy is fetched on first use and may be evicted at any time. A record beside it (.stored/NAME)
names its object. A file without a record is an ordinary local file. This module handles single
files; object_store.py handles a whole workspace.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_catalog.storage.files import put_in_place
from data_catalog.storage.object_access import (
    ObjectStorageError,
    create,
    filesystem_of,
    remove_objects,
    storage_errors,
    version_of,
)

RECORDS_FOLDER = ".stored"


@dataclass(frozen=True, slots=True)
class RemoteRecord:
    """The object that a file is a copy of."""

    url: str
    bytes: int
    version: str  # of the content, as the storage reports it, such as an ETag


def remote_record_path(path: Path) -> Path:
    """The path of a file's remote record."""
    return path.parent / RECORDS_FOLDER / path.name


def read_remote_record(path: Path) -> RemoteRecord | None:
    """The remote record of a file, or None if it is an ordinary file or a failing disk damaged the
    record. The next `ObjectStore.refresh` writes a damaged record again."""
    try:
        return RemoteRecord(**json.loads(remote_record_path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    except OSError as error:  # name the file, because users do not know its record
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_remote_record(path: Path, record: RemoteRecord, copied_at_ns: int | None) -> None:
    """Record that a file is a copy of an object. `copied_at_ns` is the file's mtime when it was
    copied, or None if there is no local copy yet."""
    target = remote_record_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{_own_suffix()}")
    unfinished.write_text(json.dumps(asdict(record)), encoding="utf-8")
    os.utime(unfinished, ns=(0, copied_at_ns or 0))
    # Not flushed: there is one record per object, and a lost one is written again.
    os.replace(unfinished, target)


def is_copy(path: Path) -> bool:
    """Whether the local file exists and is unchanged since it was copied from or to storage."""
    try:
        return path.stat().st_mtime_ns == remote_record_path(path).stat().st_mtime_ns
    except FileNotFoundError:
        return False


def is_remote_only(path: Path, size: int) -> bool:
    """Whether the file is only in object storage, with this many bytes."""
    record = None if path.exists() else read_remote_record(path)
    return record is not None and record.bytes == size


def ensure_local(path: Path) -> Path:
    """Fetch a file that is only in object storage, so that it can be read. Returns its path. Raises
    ObjectStorageError if the fetch fails."""
    record = read_remote_record(path)
    if record is None:
        return path
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the time of last use
    except FileNotFoundError:
        fetch([(path, record)])
    return path


def iter_cached(folder: Path) -> Iterator[Path]:
    """Every file below a folder that has a remote record, with or without a local copy."""
    for parent, _, names in os.walk(folder):
        if Path(parent).name == RECORDS_FOLDER:
            yield from (
                Path(parent).parent / name for name in names if not name.endswith(".partial")
            )


def away_bytes(folder: Path) -> int:
    """The total size of the files below a folder that are only in object storage."""
    records = (read_remote_record(path) for path in iter_cached(folder) if not path.exists())
    return sum(record.bytes for record in records if record)


def exists_anywhere(path: Path) -> bool:
    """Whether the file exists locally or in object storage."""
    return path.exists() or read_remote_record(path) is not None


def refetch(path: Path) -> bool:
    """Fetch a copy again, whatever its state. Returns False if the file is not a copy. Raises
    ObjectStorageError if the fetch fails."""
    record = read_remote_record(path)
    if record:
        fetch([(path, record)])
    return record is not None


def fetch(copies: Sequence[tuple[Path, RemoteRecord]]) -> None:
    """Download objects, many at a time, and put each in place by rename. Raises
    ObjectStorageError."""
    if not copies:
        return
    with storage_errors(copies[0][1].url):
        filesystem = filesystem_of(copies[0][1].url)
        unfinished = [
            remote_record_path(path).with_name(f"{path.name}.{_own_suffix()}") for path, _ in copies
        ]
        for path in unfinished:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            filesystem.get([record.url for _, record in copies], [str(path) for path in unfinished])
            for part, (path, record) in zip(unfinished, copies, strict=True):
                status = part.stat()
                if status.st_size != record.bytes:
                    raise ObjectStorageError(
                        f"{record.url} has {status.st_size} bytes, not {record.bytes}: "
                        "run the command again"
                    )
                put_in_place(part, path)
                write_remote_record(path, record, status.st_mtime_ns)
        finally:
            for part in unfinished:  # after a failed fetch no other process would delete them
                part.unlink(missing_ok=True)


def push(path: Path, url: str, *, new: bool = False) -> None:
    """Upload a file to an object. With `new`, the object must not exist yet.

    Raises:
        FileExistsError: `new` is set and the object exists with other content.
        ObjectStorageError: the upload fails.
    """
    with storage_errors(url):
        modified_ns = path.stat().st_mtime_ns  # later changes to the file are pushed again
        filesystem = filesystem_of(url)
        if new:
            create(filesystem, url, path.read_bytes())
        else:
            filesystem.put_file(str(path), url)
        info = filesystem.info(url)
        write_remote_record(path, RemoteRecord(url, info["size"], version_of(info)), modified_ns)


def push_beside(path: Path, other: Path) -> None:
    """Upload a file next to the object of another file in its folder, if that file is in object
    storage. Raises ObjectStorageError."""
    if record := read_remote_record(other):
        push(path, f"{record.url.rpartition('/')[0]}/{path.name}")


def discard(paths: Iterable[Path]) -> None:
    """Delete files locally and in object storage. Raises ObjectStorageError."""
    copies = []
    for path in paths:
        if record := read_remote_record(path):
            copies.append((path, record))
        path.unlink(missing_ok=True)
    if copies:
        with storage_errors(copies[0][1].url):
            remove_objects([record.url for _, record in copies])
        for path, _ in copies:
            remote_record_path(path).unlink(missing_ok=True)


def _own_suffix() -> str:
    return f"{os.getpid()}-{threading.get_ident()}.partial"
