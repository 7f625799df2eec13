"""The state of each stage of a run: fresh, stale, missing, interrupted or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest
from data_catalog.storage.workspace import StageName, Workspace
from pipeline.stages.dag import StageSpec, parents_among
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
    phase: str = ""
    """Name of its phase, if the run has phases."""

    @property
    def title(self) -> str:
        """The stage, and its phase."""
        return f"{self.stage} {self.phase}".rstrip()


def stage_statuses(inputs: RunInputs) -> dict[str, StageStatus]:
    """The state of each stage of a run, or of its last phase. Changes nothing."""
    return [*_phase_statuses(inputs).values()][-1]


def parent_statuses(inputs: RunInputs, stage: str) -> dict[str, StageStatus]:
    """The states of the parents of a stage. Changes nothing."""
    statuses = _phase_statuses(inputs)
    _, last = statuses.popitem()
    return parents_among(inputs.stages[stage], last, statuses)


def statuses_with_distilled(inputs: RunInputs) -> dict[str, StageStatus]:
    """The state of each stage, and where the run evaluates both models that of the distilled one's
    evaluation, as EVALUATE_DISTILLED. Changes nothing."""
    return _with_distilled(inputs, stage_statuses(inputs))


def run_statuses(inputs: RunInputs) -> list[StageStatus]:
    """The states of all stages of all phases, in the order in which they run, and of the distilled
    model's evaluation. Changes nothing."""
    return [status for statuses in phase_statuses(inputs) for status in statuses.values()]


def statuses_until(inputs: RunInputs, until: StageName | None) -> list[StageStatus]:
    """Those of run_statuses up to a stage in every phase; without one, all of them."""
    names = inputs.stages_until(until)
    return [one for one in run_statuses(inputs) if one.stage in names or until is None]


def phase_statuses(inputs: RunInputs) -> list[dict[str, StageStatus]]:
    """The same by phase and stage. Changes nothing."""
    *before, last = _phase_statuses(inputs).values()
    return [*before, _with_distilled(inputs, last)]


def _with_distilled(inputs: RunInputs, statuses: dict[str, StageStatus]) -> dict[str, StageStatus]:
    if not (of_distilled := inputs.distilled):
        return statuses
    status = stage_statuses(of_distilled)["evaluate"]
    return {**statuses, EVALUATE_DISTILLED: replace(status, stage=EVALUATE_DISTILLED)}


def _phase_statuses(inputs: RunInputs) -> dict[str, dict[str, StageStatus]]:
    """The state of each stage of each phase, first to last; of "" if the run has no phases."""
    sync_listing(inputs.config)
    phases: dict[str, dict[str, StageStatus]] = {}
    for phase in inputs.chain:
        statuses = dict[str, StageStatus]()
        for spec in phase.stages.values():
            parents = parents_among(spec, statuses, phases)
            manifests = {name: status.manifest for name, status in parents.items()}
            status = _status(spec, phase, manifests)
            statuses[spec.name] = replace(status, phase=phase.config.phase or "")
        phases[phase.config.phase or ""] = statuses
    return phases


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
