"""Stage fingerprints and the state of each stage: fresh, stale, missing, interrupted or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_catalog.model_files import model_file
from data_catalog.storage.digests import digest_of, file_digest
from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest
from data_catalog.storage.workspace import Workspace
from data_catalog.url_table.table import url_table_digest
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.stages.dag import STAGES, StageSpec
from pipeline.stages.output_settings import output_settings
from pipeline.stages.remote_workspace import is_stored, sync_listing
from tld_model.encoders.names import encoder_identity

State = Literal["fresh", "stale", "missing", "interrupted", "damaged"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The state of one stage of a run."""

    stage: str
    state: State
    manifest: Manifest | None = None
    folder: Path | None = None
    problem: str = ""


def settings_of_output(spec: StageSpec, config: RunConfig) -> dict[str, Any]:
    """The settings that can change a stage's output, as its manifest records them."""
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
            section["init_from"] = config.train.init_from and _denoiser_digest(
                config.train.init_from
            )
    return section


def _denoiser_digest(path: Path) -> str:
    """Digest of the denoiser that a training starts from. Raises ConfigError if unreadable."""
    try:
        return file_digest(model_file(path))
    except OSError as error:
        raise ConfigError(
            f"train.init_from: cannot read {model_file(path)}: {error.strerror}"
        ) from error


def fingerprint(spec: StageSpec, config: RunConfig, parents: Mapping[str, Manifest]) -> str:
    """SHA-256 of everything that can change the stage's output. It names the output folder."""
    identity = {
        "stage": spec.name,
        "version": spec.version,
        "settings": settings_of_output(spec, config),
        "parents": {name: parents[name].digest for name in spec.parents},
    }
    return digest_of(identity)


def stage_statuses(config: RunConfig) -> dict[str, StageStatus]:
    """The state of each stage. Changes nothing."""
    sync_listing(config)
    workspace = Workspace(config.folder)
    statuses: dict[str, StageStatus] = {}
    for spec in STAGES.values():
        parents = {name: statuses[name].manifest for name in spec.parents}
        statuses[spec.name] = _status(spec, config, workspace, parents)
    return statuses


def _status(
    spec: StageSpec, config: RunConfig, workspace: Workspace, parents: Mapping[str, Manifest | None]
) -> StageStatus:
    outputs = workspace.outputs(spec.name)
    has_others = outputs.is_dir() and any(outputs.glob("*/manifest.json"))
    otherwise: State = "stale" if has_others else "missing"
    ready = {name: manifest for name, manifest in parents.items() if manifest}
    if len(ready) < len(parents):
        return StageStatus(spec.name, otherwise)
    folder = workspace.output(spec.name, fingerprint(spec, config, ready))
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return StageStatus(spec.name, "damaged", folder=folder, problem=str(error))
    if manifest and is_stored(config, folder):
        return StageStatus(spec.name, "fresh", manifest, folder)
    return StageStatus(spec.name, "interrupted" if folder.is_dir() else otherwise, folder=folder)
