"""The state of each stage of a run: fresh, stale, missing, interrupted or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest
from data_catalog.storage.workspace import Workspace
from pipeline.stages.dag import StageSpec
from pipeline.stages.remote_workspace import is_stored, sync_listing
from pipeline.stages.run_inputs import RunInputs

EVALUATE_DISTILLED = "evaluate distilled"
State = Literal["fresh", "stale", "missing", "interrupted", "damaged"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The state of one stage of a run."""

    stage: str
    state: State
    manifest: Manifest | None = None
    folder: Path | None = None
    problem: str = ""


def stage_statuses(inputs: RunInputs) -> dict[str, StageStatus]:
    """The state of each stage. Changes nothing."""
    sync_listing(inputs.config)
    statuses: dict[str, StageStatus] = {}
    for spec in inputs.stages.values():
        parents: dict[str, Manifest | None] = {
            name: statuses[name].manifest for name in spec.parents
        }
        statuses[spec.name] = _status(spec, inputs, parents)
    return statuses


def statuses_with_distilled(inputs: RunInputs) -> dict[str, StageStatus]:
    """The state of each stage, and where the run evaluates both models that of the distilled one's
    evaluation, as EVALUATE_DISTILLED. Changes nothing."""
    statuses = stage_statuses(inputs)
    if of_distilled := inputs.distilled:
        status = stage_statuses(of_distilled)["evaluate"]
        statuses[EVALUATE_DISTILLED] = replace(status, stage=EVALUATE_DISTILLED)
    return statuses


def _status(
    spec: StageSpec, inputs: RunInputs, parents: Mapping[str, Manifest | None]
) -> StageStatus:
    outputs = Workspace(inputs.config.folder).outputs(spec.name)
    has_others = outputs.is_dir() and any(outputs.glob("*/manifest.json"))
    otherwise: State = "stale" if has_others else "missing"
    ready = {name: manifest for name, manifest in parents.items() if manifest}
    if len(ready) < len(parents):
        return StageStatus(spec.name, otherwise)
    folder = inputs.stage_run(spec.name, ready).folder
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return StageStatus(spec.name, "damaged", folder=folder, problem=str(error))
    if manifest and is_stored(inputs.config, folder):
        return StageStatus(spec.name, "fresh", manifest, folder)
    return StageStatus(spec.name, "interrupted" if folder.is_dir() else otherwise, folder=folder)
