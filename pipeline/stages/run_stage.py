"""The four stages as a table, what a stage is handed, and when its output is fresh.

Knows folders and fingerprints; knows nothing of what a stage does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from data_catalog.model_files import model_file
from data_catalog.storage.cached_files import ObjectStorageError, discard
from data_catalog.storage.digests import digest_of, file_digest
from data_catalog.storage.file_lock import LOCK_NAME, StillHeld, held
from data_catalog.storage.files import make_folder, unfinished_files
from data_catalog.storage.lease import HeldElsewhere
from data_catalog.storage.manifest import Manifest, ManifestError, content_digest, read_manifest, write_manifest
from data_catalog.storage.receipts import MANIFEST_NAME, Shard, forget
from data_catalog.storage.workspace import StageName, Workspace
from data_catalog.url_table.table import url_table_digest
from pipeline.compute.hardware import hardware
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.stages.output_settings import output_settings
from pipeline.stages.remote_workspace import is_kept, look_up, written_alone
from tld_model.encoders.names import encoder_identity

Item = TypeVar("Item")
Result = TypeVar("Result")
_PATIENCE_S = 30.0  # with a process that is ending
State = Literal["fresh", "stale", "missing", "interrupted", "damaged"]


class ShowsProgress(Protocol):
    """The part of a Tracker that shows how far work is."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """How far it is."""


class Tracker(ShowsProgress, Protocol):
    """Where a stage reports to while it works."""

    @property
    def run_id(self) -> str:
        """Id of the run that is told of this stage, or ""."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers that belong to a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file worth keeping with the run."""

    def warning(self, text: str) -> None:
        """Something a person should know, although the stage goes on."""


class MapShards(Protocol):
    """Apply a worker to shards, yield results as they finish; wherever the workers live."""

    def __call__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        workers: int,
        deadline_s: float | None = None,
    ) -> Iterator[Result]: ...


@dataclass(frozen=True, slots=True)
class Output:
    """What a stage function returns: it becomes a manifest."""

    shards: tuple[Shard, ...]
    figures: dict[str, Any]


class StageFailed(RuntimeError):
    """A stage that could not finish; the message says what was kept and how to go on."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One row of the DAG."""

    name: StageName
    version: int  # raised by hand when the code changes what the output means
    parents: tuple[str, ...]
    speed_only: frozenset[str]  # settings of its section that cannot change the output
    makes: str


_SPEED_ONLY_IN_DOWNLOAD = frozenset(
    {
        "source",
        "urls",
        "workers",
        "threads",
        "min_success_rate",
        "requests_per_host",
        "host_requests_per_s",
        "shard_deadline_s",
    }
)
_SPEED_ONLY_IN_TRAINING = frozenset(
    {
        *("device", "compile", "deterministic", "launch", "sharding", "accumulate"),
        *("checkpoint_every", "validate_every", "sample_every", "log_every"),
    }
)
_SPEED_ONLY_IN_ENCODING = frozenset({"device", "batch_size", "workers", "keep_images"})
STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("download", 1, (), _SPEED_ONLY_IN_DOWNLOAD, "images"),
        StageSpec("encode", 1, ("download",), _SPEED_ONLY_IN_ENCODING, "encodings"),
        StageSpec("train", 1, ("encode",), _SPEED_ONLY_IN_TRAINING, "model"),
        StageSpec("evaluate", 3, ("encode", "train"), frozenset({"device", "batch_size", "price_per_hour"}), "report"),
    )
}


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Where a stage of a run stands."""

    stage: str
    state: State
    manifest: Manifest | None = None
    folder: Path | None = None
    problem: str = ""


def settings_that_matter(spec: StageSpec, config: RunConfig) -> dict[str, Any]:
    """What can change a stage's output, parents aside: as it stands in the manifest."""
    section = output_settings(spec.name, getattr(config, spec.name), spec.speed_only)
    match spec.name:
        case "download":
            section["urls_digest"] = url_table_digest(config.download.urls)
        case "encode":
            section["vae_identity"] = encoder_identity(config.encode.vae)
            section["clip_identity"] = encoder_identity(config.encode.clip)
            if config.download.more_caption_columns:
                section["caption_columns"] = list(config.download.caption_columns)
        case "train":
            section["model"] = output_settings("model", config.model)
            section["init_from"] = config.train.init_from and _denoiser_digest(config.train.init_from)
    return section


def _denoiser_digest(path: Path) -> str:
    """Digest of the denoiser that a training starts from, wherever it lies. Raises ConfigError."""
    try:
        return file_digest(model_file(path))
    except OSError as error:
        raise ConfigError(f"train.init_from: cannot read {model_file(path)}: {error.strerror}") from error


def fingerprint(spec: StageSpec, config: RunConfig, parents: Mapping[str, Manifest]) -> str:
    """SHA-256 of all that can change the stage's output. It names the folder."""
    identity = {
        "stage": spec.name,
        "version": spec.version,
        "settings": settings_that_matter(spec, config),
        "parents": {name: parents[name].digest for name in spec.parents},
    }
    return digest_of(identity)


def survey(config: RunConfig) -> dict[str, StageStatus]:
    """The state of each stage, without changing anything."""
    look_up(config)
    workspace = Workspace(config.folder)
    statuses: dict[str, StageStatus] = {}
    for spec in STAGES.values():
        parents = {name: statuses[name].manifest for name in spec.parents}
        statuses[spec.name] = _status(spec, config, workspace, parents)
    return statuses


def _status(
    spec: StageSpec, config: RunConfig, workspace: Workspace, parents: Mapping[str, Manifest | None]
) -> StageStatus:
    others = workspace.outputs(spec.name)
    otherwise: State = "stale" if others.is_dir() and any(others.glob("*/manifest.json")) else "missing"
    ready = {name: manifest for name, manifest in parents.items() if manifest}
    if len(ready) < len(parents):
        return StageStatus(spec.name, otherwise)
    folder = workspace.output(spec.name, fingerprint(spec, config, ready))
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return StageStatus(spec.name, "damaged", folder=folder, problem=str(error))
    if manifest and is_kept(config, folder):
        return StageStatus(spec.name, "fresh", manifest, folder)
    return StageStatus(spec.name, "interrupted" if folder.is_dir() else otherwise, folder=folder)


def run_stage(
    stage: str,
    config: RunConfig,
    parents: Mapping[str, Manifest],
    force: bool,
    track: Tracker,
    work: Callable[[Path], Output],
    reopen: bool = False,
) -> Manifest:
    """Do a stage's work in its folder, or resume it there, and write the manifest. Returns at once where
    the output is fresh, unless it is to be made again (`force`) or added to (`reopen`)."""
    spec = STAGES[stage]
    identity = fingerprint(spec, config, parents)
    folder = Workspace(config.folder).output(stage, identity)
    make_folder(folder)
    look_up(config, stage, accounts=True)
    again = force or reopen
    with _alone_in(folder):
        if not again and is_kept(config, folder) and (ready := _ready(folder)):
            return ready
        with _kept(config, folder, track):
            if not again and (ready := _ready(folder)):
                return ready
            return _make(spec, config, parents, identity, folder, force, track, work)


def _ready(folder: Path) -> Manifest | None:
    """The manifest of a whole output. Of a damaged one, shards whose files are as their receipts say are not made
    again."""
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
        forget(folder)

    started = time.monotonic()
    with _still_there(folder, spec.name):
        output = work(folder)
    manifest = Manifest(
        stage=spec.name,
        version=spec.version,
        fingerprint=identity,
        digest=content_digest(output.shards),
        rows=sum(shard.rows for shard in output.shards),
        shards=output.shards,
        figures=output.figures,
        settings=settings_that_matter(spec, config),
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
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time in an output folder. Raises StageFailed."""
    try:
        with held(folder / LOCK_NAME, _PATIENCE_S):
            yield
    except StillHeld as error:
        raise StageFailed(str(error)) from None


@contextmanager
def _still_there(folder: Path, stage: str) -> Iterator[None]:
    """Raise StageFailed where the folder was removed meanwhile, whatever that led to: parts of the work
    may have made it anew, without what was in it."""
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
def _kept(config: RunConfig, folder: Path, track: Tracker) -> Iterator[None]:
    """Keep what is made in object storage, where root lies there. Raises StageFailed."""
    try:
        with written_alone(config, folder, track):
            yield
    except HeldElsewhere as error:
        raise StageFailed(str(error)) from None
    except ObjectStorageError as error:
        raise StageFailed(f"{error}\nWhat was made is kept in {folder}: the same command goes on from it") from error
