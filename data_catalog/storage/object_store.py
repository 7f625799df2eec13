"""A workspace in object storage with a local cache: listing, refreshing and evicting outputs.

After `refresh` the local folder matches the storage: small files are present, and each of the
others has a remote record. Leases decide who may write (data_catalog/storage/lease.py).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.storage.cached_files import (
    RemoteRecord,
    fetch,
    is_copy,
    iter_cached,
    read_remote_record,
    remote_record_path,
    write_remote_record,
)
from data_catalog.storage.object_access import filesystem_of, storage_errors, version_of
from data_catalog.storage.receipts import MANIFEST_NAME, is_bookkeeping, is_eviction_mark
from data_catalog.storage.workspace import OUTPUT_FOLDERS

_IN_USE_S = 60  # a copy that was used within this time is not evicted


def is_url(root: str) -> bool:
    """Whether a workspace is in object storage."""
    return "://" in root


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The URL of a workspace in object storage, and the local folder that caches it."""

    url: str
    root: Path

    def url_of(self, path: Path) -> str:
        """The URL of the object of a file in the workspace."""
        return f"{self.url.rstrip('/')}/{path.relative_to(self.root).as_posix()}"

    def listed(self, folder: Path) -> dict[Path, RemoteRecord]:
        """Every object below a folder of the workspace, by the path of its local copy. Raises
        ObjectStorageError."""
        url = self.url_of(folder)
        with storage_errors(url):
            filesystem = filesystem_of(url)
            base = filesystem._strip_protocol(self.url).rstrip("/") + "/"
            objects: dict[str, dict[str, Any]] = (
                filesystem.find(url, detail=True) if filesystem.exists(url) else {}
            )
        named = ((path.removeprefix(base), info) for path, info in objects.items())
        return {
            self.root / name: RemoteRecord(
                f"{self.url.rstrip('/')}/{name}", info["size"], version_of(info)
            )
            for name, info in named
            if not any(part.startswith(".") for part in name.split("/"))
        }

    def refresh(
        self,
        folder: Path,
        objects: dict[Path, RemoteRecord],
        *,
        accounts: bool = False,
        everything: bool = False,
    ) -> None:
        """Make an output's folder match its objects, all of which must be given.

        The manifest and the marks of evicted files are fetched. Receipts are fetched too if the
        output is unfinished or `accounts` is set, and all files if `everything` is set. The
        remaining objects get a remote record. Files that were not pushed yet stay, and so do the
        files of an output of which the storage has nothing left. Raises ObjectStorageError.
        """
        for path in [path for path in iter_cached(folder) if path not in objects]:
            if objects and is_copy(path) and is_bookkeeping(path):
                path.unlink()  # another machine deleted it
            remote_record_path(path).unlink()
        for path, record in objects.items():
            if read_remote_record(path) != record:
                path.unlink(missing_ok=True)
                write_remote_record(path, record, None)
        accounts = accounts or folder / MANIFEST_NAME not in objects
        to_fetch = [
            path
            for path in objects
            if everything
            or path.name == MANIFEST_NAME
            or is_eviction_mark(path)
            or (accounts and is_bookkeeping(path))
        ]
        fetch([(path, objects[path]) for path in to_fetch if not path.exists()])

    def evict(self, most_bytes: int) -> int:
        """Delete local copies of shards, least recently used first, until at most `most_bytes` are
        left. Returns the number of bytes left, which is larger if copies in use had to stay.

        Models and reports are not evicted: they are small and may be in the middle of a write.
        """
        copies = [
            (path, status)
            for stage in ("download", "encode")
            for path in iter_cached(self.root / OUTPUT_FOLDERS[stage])
            if path.name != MANIFEST_NAME
            and not is_bookkeeping(path)
            and is_copy(path)
            and (status := _status(path))
        ]
        total = sum(status.st_size for _, status in copies)
        for path, status in sorted(copies, key=lambda copy: copy[1].st_atime_ns):
            if total <= most_bytes or status.st_atime > time.time() - _IN_USE_S:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size
        return total


def _status(path: Path) -> os.stat_result | None:
    """The status of a file, or None if another process has just deleted it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def check_object_root(url: str) -> None:
    """Check that objects below a URL can be written and deleted. Raises ObjectStorageError if
    not."""
    probe = f"{url.rstrip('/')}/.probe-{os.getpid()}"
    with storage_errors(url):
        filesystem = filesystem_of(url)
        filesystem.pipe_file(probe, b"")
        filesystem.rm_file(probe)
