"""A workspace in object storage, and its copy in a folder of this machine: outputs are looked up,
pushed, and let go.

After `refresh` the folder is as the storage has it: small files are there, the others marked. Knows
files, not what they say; who may write is decided elsewhere (data_catalog/storage/lease.py).
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
    filesystem_of,
    is_copy,
    iter_cached,
    read_remote_record,
    remote_record_path,
    storage_errors,
    version_of,
    write_remote_record,
)
from data_catalog.storage.receipts import MANIFEST_NAME, is_bookkeeping, is_eviction_mark
from data_catalog.storage.workspace import OUTPUT_FOLDERS

_IN_USE_S = 60  # a copy that was of use so lately stays


def is_url(root: str) -> bool:
    """Whether a workspace lies in object storage."""
    return "://" in root


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A workspace's place in object storage, and the folder of its copy."""

    url: str
    root: Path

    def url_of(self, path: Path) -> str:
        """The object of a file in the workspace."""
        return f"{self.url.rstrip('/')}/{path.relative_to(self.root).as_posix()}"

    def listed(self, folder: Path) -> dict[Path, RemoteRecord]:
        """Every object below a folder of the workspace, by the path of its copy. Raises
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
        accounts: bool = False,
        everything: bool = False,
    ) -> None:
        """Make an output's folder as these objects, all of its: the manifest and marks of release
        are fetched; of an unfinished output, or with `accounts`, receipts too; with `everything`
        all files; the others are marked. What was not pushed yet stays, and what the storage has
        lost whole. Raises ObjectStorageError."""
        for path in [path for path in iter_cached(folder) if path not in objects]:
            if objects and is_copy(path) and is_bookkeeping(path):
                path.unlink()  # another machine took it back
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
        """Delete copies of shards, those longest out of use first, until the rest takes less.
        Returns how many bytes they take then: those in use stay. Models and reports are small, and
        may be being written."""
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
    """None where another process was faster to delete it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def check_object_root(url: str) -> None:
    """Try that objects can be made and deleted below a URL. Raises ObjectStorageError."""
    probe = f"{url.rstrip('/')}/.probe-{os.getpid()}"
    with storage_errors(url):
        filesystem = filesystem_of(url)
        filesystem.pipe_file(probe, b"")
        filesystem.rm_file(probe)
