"""A file of an output whose truth lies in object storage: the file here is a copy, fetched when it
is asked for, and may go again. A mark beside it (.stored/NAME) says which object it is a copy of.

Where nothing is marked, this is an ordinary folder. Knows objects one by one; object_store.py knows
all of a workspace.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec

from data_catalog.storage.files import put_in_place

RECORDS_FOLDER = ".stored"
_AT_A_TIME = 16


class ObjectStorageError(RuntimeError):
    """Object storage that does not answer, or not as it should; the message says where."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class RemoteRecord:
    """Which object a file is a copy of."""

    url: str
    bytes: int
    version: str  # of the content, as the storage tells it: an ETag


def remote_record_path(path: Path) -> Path:
    """Where the mark of a file lies."""
    return path.parent / RECORDS_FOLDER / path.name


def read_remote_record(path: Path) -> RemoteRecord | None:
    """The mark of a file, or None where it is an ordinary one, or a failing disk changed the mark:
    the next look at the storage writes it anew."""
    try:
        return RemoteRecord(**json.loads(remote_record_path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    except OSError as error:  # a user knows the file, not its mark
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_remote_record(path: Path, record: RemoteRecord, copied_at_ns: int | None) -> None:
    """Say that the file as it was at that time (its mtime) is a copy; None where there is no copy
    yet."""
    target = remote_record_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{_own_suffix()}")
    unfinished.write_text(json.dumps(asdict(record)), encoding="utf-8")
    os.utime(unfinished, ns=(0, copied_at_ns or 0))
    os.replace(
        unfinished, target
    )  # not flushed: there are as many as objects, and a lost one is written anew


def is_copy(path: Path) -> bool:
    """Whether the file is here, and as it is in the storage."""
    try:
        return path.stat().st_mtime_ns == remote_record_path(path).stat().st_mtime_ns
    except FileNotFoundError:
        return False


def is_remote_only(path: Path, size: int) -> bool:
    """Whether the file is not here but in the storage, with this many bytes."""
    record = None if path.exists() else read_remote_record(path)
    return record is not None and record.bytes == size


def ensure_local(path: Path) -> Path:
    """The path of a file that is about to be read: fetched where it is away. Raises
    ObjectStorageError."""
    record = read_remote_record(path)
    if record is None:
        return path
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # when it was last of use
    except FileNotFoundError:
        fetch([(path, record)])
    return path


def iter_cached(folder: Path) -> Iterator[Path]:
    """Every file below a folder that has a mark, here or away."""
    for parent, _, names in os.walk(folder):
        if Path(parent).name == RECORDS_FOLDER:
            yield from (
                Path(parent).parent / name for name in names if not name.endswith(".partial")
            )


def away_bytes(folder: Path) -> int:
    """Of all files below a folder that are in the storage alone."""
    records = (read_remote_record(path) for path in iter_cached(folder) if not path.exists())
    return sum(record.bytes for record in records if record)


def exists_anywhere(path: Path) -> bool:
    """Whether the file is here or away."""
    return path.exists() or read_remote_record(path) is not None


def refetch(path: Path) -> bool:
    """Fetch a copy again, whatever became of it; False where it is none. Raises
    ObjectStorageError."""
    record = read_remote_record(path)
    if record:
        fetch([(path, record)])
    return record is not None


def fetch(copies: Sequence[tuple[Path, RemoteRecord]]) -> None:
    """Copy objects here, many at a time, each by rename. Raises ObjectStorageError."""
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
                        f"{record.url} has {status.st_size} bytes, not {record.bytes}: run this again"
                    )
                put_in_place(part, path)
                write_remote_record(path, record, status.st_mtime_ns)
        finally:
            for part in unfinished:  # of a fetch that failed: another process would never find it
                part.unlink(missing_ok=True)


def push(path: Path, url: str, new: bool = False) -> None:
    """Copy a file to an object; a new one only where there is none yet. Raises FileExistsError, or
    ObjectStorageError."""
    with storage_errors(url):
        modified_ns = path.stat().st_mtime_ns  # what is written from now on is pushed again
        filesystem = filesystem_of(url)
        if new:
            create(filesystem, url, path.read_bytes())
        else:
            filesystem.put_file(str(path), url)
        info = filesystem.info(url)
        write_remote_record(path, RemoteRecord(url, info["size"], version_of(info)), modified_ns)


def create(filesystem: Any, url: str, content: bytes) -> None:
    """Write an object where there is none. One of the same content is what was written here, and
    not confirmed. Raises FileExistsError, or what the file system raises."""
    try:
        filesystem.pipe_file(url, content, mode="create")
    except OSError as error:
        # Servers other than Amazon's do not say which condition failed, and s3fs makes an EINVAL of
        # that.
        answer = getattr(error.__cause__, "response", {})
        if (
            not isinstance(error, FileExistsError)
            and answer.get("Error", {}).get("Code") != "PreconditionFailed"
        ):
            raise
        if filesystem.cat_file(url) != content:
            raise FileExistsError(url) from error


def push_beside(path: Path, other: Path) -> None:
    """Copy a file to where another of its folder is kept, if that is in storage. Raises
    ObjectStorageError."""
    if record := read_remote_record(other):
        push(path, f"{record.url.rpartition('/')[0]}/{path.name}")


def discard(paths: Iterable[Path]) -> None:
    """Delete files here and in the storage. Raises ObjectStorageError."""
    copies = []
    for path in paths:
        if record := read_remote_record(path):
            copies.append((path, record))
        path.unlink(missing_ok=True)
    if copies:
        with storage_errors(copies[0][1].url):
            _remove_objects([record.url for _, record in copies])
        for path, _ in copies:
            remote_record_path(path).unlink(missing_ok=True)


def _remove_objects(urls: Sequence[str]) -> None:
    """Delete objects, many at a time; another machine may have been faster."""

    def remove(url: str) -> None:
        with suppress(FileNotFoundError):
            filesystem_of(url).rm_file(url)

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        list(threads.map(remove, urls))


def filesystem_of(url: str) -> Any:
    """fsspec's file system of a URL, which always looks at the storage itself: others change it
    too."""
    return fsspec.core.url_to_fs(url, use_listings_cache=False)[0]


def version_of(info: dict[str, Any]) -> str:
    """What changes when an object does, of what a listing tells."""
    names = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified")
    return str(next((info[name] for name in names if info.get(name)), info.get("size")))


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Name the place in what goes wrong: each remote file system has errors of its own."""
    try:
        yield
    except (ObjectStorageError, FileExistsError):
        raise
    except ImportError as error:
        raise ObjectStorageError(f"{url} needs a package that is not installed: {error}") from error
    except Exception as error:
        raise ObjectStorageError(
            f"object storage failed at {url}: {type(error).__name__}: {error}"
        ) from error


def _own_suffix() -> str:
    return f"{os.getpid()}-{threading.get_ident()}.partial"
