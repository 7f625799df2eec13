"""The four stages as a table, what a stage is handed, and when its output is fresh.

Knows folders and fingerprints; knows nothing of what a stage does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

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
from data_catalog.storage.workspace import Workspace
from pipeline.compute.hardware import hardware
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.dag import STAGES, StageSpec
from pipeline.stages.freshness import fingerprint, settings_of_output
from pipeline.stages.remote_workspace import exclusive_output, is_stored, sync_listing

_TIMEOUT_S = 30.0  # with a process that is ending


def run_stage(
    stage: str,
    config: RunConfig,
    parents: Mapping[str, Manifest],
    force: bool,
    track: Tracker,
    work: Callable[[Path], Output],
    reopen: bool = False,
) -> Manifest:
    """Do a stage's work in its folder, or resume it there, and write the manifest. Returns at once
    where the output is fresh, unless it is to be made again (`force`) or added to (`reopen`)."""
    spec = STAGES[stage]
    identity = fingerprint(spec, config, parents)
    folder = Workspace(config.folder).output(stage, identity)
    make_folder(folder)
    sync_listing(config, stage, accounts=True)
    again = force or reopen
    with _locked(folder):
        if not again and is_stored(config, folder) and (ready := _ready(folder)):
            return ready
        with _uploading(config, folder, track):
            if not again and (ready := _ready(folder)):
                return ready
            return _make(spec, config, parents, identity, folder, force, track, work)


def _ready(folder: Path) -> Manifest | None:
    """The manifest of a whole output. Of a damaged one, shards whose files are as their receipts
    say are not made again."""
    try:
        return read_manifest(folder)
    except ManifestError:
        return None


def _make(
    spec: StageSpec,
    config: RunConfig,
    parents: Mapping[str, Manifest],
    identity: str,
    folder: Path,
    force: bool,
    track: Tracker,
    work: Callable[[Path], Output],
) -> Manifest:
    discard([folder / MANIFEST_NAME])
    for leftover in unfinished_files(folder):
        leftover.unlink(missing_ok=True)
    if force:
        invalidate(folder)

    started = time.monotonic()
    with _watching_removal(folder, spec.name):
        output = work(folder)
    manifest = Manifest(
        stage=spec.name,
        version=spec.version,
        fingerprint=identity,
        digest=content_digest(output.shards),
        rows=sum(shard.rows for shard in output.shards),
        shards=output.shards,
        figures=output.figures,
        settings=settings_of_output(spec, config),
        parents={name: parents[name].digest for name in spec.parents},
        made_by=track.run_id,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        hardware=hardware(),
        name=config.name,
        folder=folder,
    )
    write_manifest(manifest)
    return manifest


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time in an output folder. Raises StageFailed."""
    try:
        with file_lock(folder / LOCK_NAME, _TIMEOUT_S):
            yield
    except LockTimeout as error:
        raise StageFailed(str(error)) from None


@contextmanager
def _watching_removal(folder: Path, stage: str) -> Iterator[None]:
    """Raise StageFailed where the folder was removed meanwhile, whatever that led to: parts of the
    work may have made it anew, without what was in it."""
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
    return f"{stage}: {folder} was removed while the stage worked in it; the same command begins it anew"


@contextmanager
def _uploading(config: RunConfig, folder: Path, track: Tracker) -> Iterator[None]:
    """Keep what is made in object storage, where root lies there. Raises StageFailed."""
    try:
        with exclusive_output(config, folder, track):
            yield
    except LeaseTaken as error:
        raise StageFailed(str(error)) from None
    except ObjectStorageError as error:
        raise StageFailed(
            f"{error}\nWhat was made is kept in {folder}: the same command goes on from it"
        ) from error
