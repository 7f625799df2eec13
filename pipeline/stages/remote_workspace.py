"""Workspaces in object storage: the local folder mirrors the listing and holds copies of files.

If root is a folder of this machine, the functions here do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from data_catalog.storage.cached_files import RemoteRecord, fetch, is_copy, read_remote_record
from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.lease import hold_lease
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.object_store import ObjectStore, is_url
from data_catalog.storage.receipts import MANIFEST_NAME
from data_catalog.storage.uploader import uploading
from data_catalog.storage.workspace import OUTPUT_FOLDERS, Workspace
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError

_TIMEOUT_S = 2.0  # for another command that lists; a working stage knows its folder best
# Stages that need all files of an unfinished output to resume it.
_WHOLE = {OUTPUT_FOLDERS[stage] for stage in ("train", "distill", "evaluate")}
_FILES_AT_A_TIME = 32


class Reporter(Protocol):
    """Receives the progress of copies, and warnings."""

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def warning(self, text: str) -> None: ...


def store_of(config: RunConfig) -> ObjectStore | None:
    """The object storage of the workspace, or None if it is a local folder."""
    return ObjectStore(config.root, config.folder) if is_url(config.root) else None


def sync_listing(config: RunConfig, *stages: str, accounts: bool = False) -> None:
    """Update this machine's folder to the storage's listing of these stages, or of all. With
    `accounts` the bookkeeping of each shard is fetched too. Raises ObjectStorageError if the
    storage cannot be reached."""
    if not (store := store_of(config)):
        return
    for stage in stages or OUTPUT_FOLDERS:
        outputs = Workspace(config.folder).outputs(stage)
        objects: dict[Path, dict[Path, RemoteRecord]] = {
            folder: {} for folder in outputs.glob("*") if folder.is_dir()
        }
        for path, record in store.listed(outputs).items():
            objects.setdefault(outputs / path.relative_to(outputs).parts[0], {})[path] = record
        for folder, records in objects.items():
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(LockTimeout), file_lock(folder / LOCK_NAME, _TIMEOUT_S):
                store.refresh(folder, records, accounts=accounts)


def is_stored(config: RunConfig, folder: Path) -> bool:
    """Whether a finished output has been uploaded, if the workspace is in object storage."""
    return not is_url(config.root) or is_copy(folder / MANIFEST_NAME)


@contextmanager
def alone_in_storage(config: RunConfig, folder: Path) -> Iterator[None]:
    """Hold the lease of an output, so that no other machine works on it.

    Raises:
        LeaseTaken: another machine holds it.
        ObjectStorageError: the storage cannot be reached.
    """
    if not (store := store_of(config)):
        yield
        return
    with hold_lease(store.url_of(folder), folder):
        yield


@contextmanager
def exclusive_output(config: RunConfig, folder: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lease of an output while it is written, and upload its finished files.

    Raises:
        LeaseTaken: another machine holds it.
        ObjectStorageError: the storage cannot be reached.
    """
    store = store_of(config)
    if not store:
        yield
        return
    with hold_lease(store.url_of(folder), folder) as lease:
        store.refresh(
            folder, store.listed(folder), accounts=True, everything=folder.parent.name in _WHOLE
        )
        with uploading(store, lease, round(config.cache.max_gb * 1e9), reporter.warning):
            yield


class NoRoomForCopies(ConfigError):
    """An output larger than the cache."""


def fetch_output(manifest: Manifest, config: RunConfig, reporter: Reporter) -> Manifest:
    """Fetch all files of an output, as fetch_outputs."""
    fetch_outputs([manifest], config, reporter)
    return manifest


def fetch_outputs(manifests: Sequence[Manifest], config: RunConfig, reporter: Reporter) -> None:
    """Fetch all files of outputs of a stage, because they are read again in every epoch.

    Raises:
        NoRoomForCopies: the outputs are larger than the cache.
        ObjectStorageError: the storage cannot be reached.
    """
    if not is_url(config.root):
        return
    records = {
        manifest.folder / name: record
        for manifest in manifests
        for shard in manifest.shards
        for name, record in shard.files.items()
    }
    needed = sum(record.bytes for record in records.values()) / 1e9
    if needed > config.cache.max_gb:
        what = f"the {manifests[0].stage} output takes"
        if len(manifests) > 1:
            what = f"the {manifests[0].stage} outputs of {len(manifests)} phases take"
        raise NoRoomForCopies(
            f"{what} {needed:.1f} GB, and every epoch reads all of it: "
            f"cache.max_gb={config.cache.max_gb:g} is too small; raise it, with cache.folder on a "
            "disk with enough space"
        )
    remote = [
        (path, record)
        for path in records
        if not path.exists() and (record := read_remote_record(path))
    ]
    for start in range(0, len(remote), _FILES_AT_A_TIME):
        reporter.progress(start, len(remote), f"fetching files from {config.root}")
        fetch(remote[start : start + _FILES_AT_A_TIME])
