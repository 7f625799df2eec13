"""Running one stage: lock its output folder, skip it if it is fresh, write its manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from data_catalog.storage.cached_files import discard
from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.files import make_folder, unfinished_files
from data_catalog.storage.lease import LeaseTaken
from data_catalog.storage.manifest import (
    Manifest,
    ManifestError,
    content_digest,
    read_manifest,
    write_manifest,
)
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.receipts import MANIFEST_NAME, invalidate
from pipeline.compute.hardware import hardware
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.remote_workspace import exclusive_output, is_stored, sync_listing
from pipeline.stages.run_inputs import StageRun

_TIMEOUT_S = 30.0  # for a process that is ending


def run_stage(
    run: StageRun,
    track: Tracker,
    work: Callable[[Path], Output],
    *,
    force: bool | Literal["reopen"] = False,
) -> Manifest:
    """Run or resume a stage in its output folder, and write the manifest.

    If the output is fresh, its manifest is returned at once. `force` runs the stage anyway:
    True repeats all shards, "reopen" keeps the finished ones. Raises StageFailed if another process
    works in the folder, or if the folder is removed meanwhile.
    """
    config, folder = run.config, run.folder
    make_folder(folder)
    sync_listing(config, run.spec.name, accounts=True)
    with _locked(folder):
        if not force and is_stored(config, folder) and (ready := _ready(folder)):
            return ready
        with _uploading(config, folder, track):
            if not force and (ready := _ready(folder)):
                return ready
            return _produce(run, track, work, from_scratch=force is True)


def _ready(folder: Path) -> Manifest | None:
    """The manifest of a complete output. A damaged output has none; its shards whose files match
    their receipts are kept."""
    try:
        return read_manifest(folder)
    except ManifestError:
        return None


def _produce(
    run: StageRun, track: Tracker, work: Callable[[Path], Output], *, from_scratch: bool
) -> Manifest:
    """Do the work of a stage, and write its manifest."""
    spec, folder = run.spec, run.folder
    discard([folder / MANIFEST_NAME])
    for leftover in unfinished_files(folder):
        leftover.unlink(missing_ok=True)
    if from_scratch:
        invalidate(folder)

    started = time.monotonic()
    with _watching_removal(folder, spec.name):
        output = work(folder)
    manifest = Manifest(
        stage=spec.name,
        version=spec.version,
        fingerprint=run.fingerprint,
        digest=content_digest(output.shards),
        rows=sum(shard.rows for shard in output.shards),
        shards=output.shards,
        figures=output.figures,
        settings=dict(run.settings),
        parents={parent: manifest.digest for parent, manifest in run.parents.items()},
        made_by=track.run_id,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        hardware=hardware(),
        name=run.config.name,
        folder=folder,
    )
    write_manifest(manifest)
    return manifest


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock an output folder. Raises StageFailed if another process works in it."""
    try:
        with file_lock(folder / LOCK_NAME, _TIMEOUT_S):
            yield
    except LockTimeout as error:
        raise StageFailed(str(error)) from None


@contextmanager
def _watching_removal(folder: Path, stage: str) -> Iterator[None]:
    """Raise StageFailed if the folder was removed meanwhile, regardless of the error that followed:
    the work may have created it again, without its former content."""
    before = folder.stat()
    try:
        yield
    except Exception as error:
        if _is_same(folder, before):
            raise
        raise StageFailed(_removed(folder, stage)) from error
    if not _is_same(folder, before):
        raise StageFailed(_removed(folder, stage))


def _is_same(folder: Path, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(folder.stat(), before)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _removed(folder: Path, stage: str) -> str:
    return (
        f"{stage}: {folder} was removed while the stage worked in it; run the same command to "
        "start the stage again"
    )


@contextmanager
def _uploading(config: RunConfig, folder: Path, track: Tracker) -> Iterator[None]:
    """Upload finished files if root is in object storage. Raises StageFailed if that fails."""
    try:
        with exclusive_output(config, folder, track):
            yield
    except LeaseTaken as error:
        raise StageFailed(str(error)) from None
    except ObjectStorageError as error:
        raise StageFailed(
            f"{error}\nFinished files are kept in {folder}: run the same command to resume"
        ) from error
