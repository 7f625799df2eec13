"""Reasons why the stages of a run are not fresh: what differs from the nearest existing output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_catalog.model_files import (
    CHECKPOINTS_FOLDER,
    checkpoints_anywhere,
    is_checkpoint,
    step_of,
)
from data_catalog.storage.lineage import finished_outputs, parent
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import MODEL_STAGES, Workspace
from pipeline.maintenance.inventory import place
from pipeline.maintenance.stage_costs import (
    UNKNOWN,
    UNKNOWN_INPUT,
    StageCost,
    cost_like,
    cost_of,
    rest_of_training,
)
from pipeline.stages.dag import STAGES, StageSpec, parents_among
from pipeline.stages.freshness import EVALUATE_DISTILLED, StageStatus, phase_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.setting_changes import SettingChange, recorded_settings, setting_changes
from pipeline.train.trunk import checkpoint_to_begin_with


@dataclass(frozen=True, slots=True)
class StageReason:
    """The state of a stage and, unless it is fresh, why the run would make its output."""

    status: StageStatus
    makes: str
    """What its output is: images, encodings, model or report."""
    waits_for: tuple[str, ...] = ()
    """The stages before it that are not fresh."""
    nearest: Manifest | None = None
    """The finished output from which it differs least; of a fresh stage its own."""
    changes: tuple[SettingChange, ...] = ()
    """Settings and inputs in which the nearest output differs."""
    done_steps: int | None = None
    """The step at which an interrupted training resumes."""
    begins_with: Path | None = None
    """The checkpoint of another training with which this one begins."""
    cost: StageCost = UNKNOWN
    """What it will take, by the nearest output; of a fresh stage what it took."""

    is_shared: bool = False
    """Whether its output is that of the phase before, which makes it."""

    @property
    def is_fresh(self) -> bool:
        return self.status.state == "fresh"


def stage_reasons(inputs: RunInputs, force: Collection[str] = ()) -> list[StageReason]:
    """All stages of all phases, in the order in which they run, and the distilled model's
    evaluation. The stages in `force` begin at their start. Changes nothing."""
    reasons: list[StageReason] = []
    earlier: dict[str, dict[str, StageReason]] = {}
    for phase, statuses in zip(inputs.chain, phase_statuses(inputs), strict=True):
        in_phase: dict[str, StageReason] = {}
        for spec in phase.stages.values():
            parents = parents_among(spec, in_phase, earlier)
            reason = _reason(phase, spec, statuses[spec.name], parents, force)
            in_phase[spec.name] = replace(reason, is_shared=phase.shares(spec.name))
        if (status := statuses.get(EVALUATE_DISTILLED)) and (distilled := phase.distilled):
            spec = distilled.stages["evaluate"]
            parents = parents_among(spec, in_phase, earlier)
            in_phase[EVALUATE_DISTILLED] = _reason(distilled, spec, status, parents, force)
        reasons += in_phase.values()
        earlier[phase.config.phase or ""] = in_phase
    return reasons


def _reason(
    inputs: RunInputs,
    spec: StageSpec,
    status: StageStatus,
    parents: Mapping[str, StageReason],
    force: Collection[str],
) -> StageReason:
    waits_for = tuple(parent.status.title for parent in parents.values() if not parent.is_fresh)
    if status.state == "damaged":
        return StageReason(status, spec.makes, waits_for)
    settings = inputs.settings(spec.name)
    if own := status.manifest:
        return StageReason(status, spec.makes, waits_for, own, cost=cost_of(own))
    is_forced = spec.name in force
    begins_with = None if is_forced else _checkpoint_to_begin_with(inputs, spec, parents)
    if status.state == "interrupted" and status.folder:
        steps = None if is_forced else _steps_done(status.folder)
        first = _step_of(begins_with) if steps is None else steps
        cost = UNKNOWN
        if spec.name in MODEL_STAGES:
            cost = rest_of_training(settings, status.folder, first)
        if steps is not None:
            begins_with = None
        return StageReason(status, spec.makes, done_steps=steps, begins_with=begins_with, cost=cost)
    now = _identity(spec.name, spec.version, settings)
    outputs = sorted(
        finished_outputs(Workspace(inputs.config.folder), spec.name), key=_age, reverse=True
    )
    if not outputs:
        return StageReason(status, spec.makes, waits_for, begins_with=begins_with)
    nearest = min(outputs, key=lambda output: _distance(output, now, parents))
    changes = setting_changes(_settings(nearest), now)
    names = [change.name for change in changes]
    names += _changes_of_inputs(inputs, spec, nearest)
    return StageReason(
        status,
        spec.makes,
        waits_for,
        nearest,
        (*changes, *_input_changes(nearest, parents)),
        begins_with=begins_with,
        cost=cost_like(nearest, settings, names, _costs(parents), _step_of(begins_with)),
    )


def _costs(parents: Mapping[str, StageReason]) -> dict[str, StageCost]:
    return {name: parent.cost for name, parent in parents.items()}


def _checkpoint_to_begin_with(
    inputs: RunInputs, spec: StageSpec, parents: Mapping[str, StageReason]
) -> Path | None:
    """The checkpoint with which a training begins, which is known once its parents are fresh."""
    manifests = {name: parent.nearest for name, parent in parents.items() if parent.is_fresh}
    fresh = {name: manifest for name, manifest in manifests.items() if manifest}
    if spec.name != "train" or len(fresh) < len(parents):
        return None
    return checkpoint_to_begin_with(inputs.stage_run("train", fresh))


def _step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint; 0 if its name does not say it."""
    return step_of(checkpoint) if checkpoint and is_checkpoint(checkpoint) else 0


def _age(output: Manifest) -> str:
    return output.made_at


def _identity(stage: str, version: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**recorded_settings(stage, settings), f"version of {stage}": version}


def _settings(output: Manifest) -> dict[str, Any]:
    return _identity(output.stage, output.version, output.settings)


def _distance(output: Manifest, now: Mapping[str, Any], parents: Mapping[str, StageReason]) -> int:
    """The number of settings and inputs that differ. An input that does not exist yet is compared
    by the output that is nearest to it."""
    inputs = [
        name
        for name, parent in parents.items()
        if not parent.nearest or output.parents.get(name) != parent.nearest.digest
    ]
    return len(setting_changes(_settings(output), now)) + len(inputs)


def _input_changes(
    nearest: Manifest, parents: Mapping[str, StageReason]
) -> tuple[SettingChange, ...]:
    """Inputs that exist and are others than those of the nearest output."""
    workspace, changes = Workspace(nearest.folder.parents[1]), []
    for name, reason in parents.items():
        own = reason.nearest
        if not reason.is_fresh or not own or nearest.parents.get(name) == own.digest:
            continue
        theirs = parent(workspace, nearest, name)
        missing = "deleted" if name in nearest.parents else "none"
        before = place(theirs.folder) if theirs else missing
        changes.append(SettingChange(_makes(name), before, place(own.folder)))
    return tuple(changes)


def _changes_of_inputs(inputs: RunInputs, spec: StageSpec, nearest: Manifest) -> Iterator[str]:
    """The names of the settings in which the inputs of the nearest output, and theirs, differ from
    those of the run, or that this is unknown. Those of other phases are left out."""
    workspace = Workspace(nearest.folder.parents[1])
    for name in spec.parents:
        if name not in inputs.stages or name == spec.name:
            continue
        if not (theirs := parent(workspace, nearest, name)):
            yield UNKNOWN_INPUT
            continue
        own = inputs.stages[name]
        now = _identity(name, own.version, inputs.settings(name))
        yield from (change.name for change in setting_changes(_settings(theirs), now))
        yield from _changes_of_inputs(inputs, own, theirs)


def _makes(parent_name: str) -> str:
    """What a parent is: encodings, or encodings of first."""
    stage, _, phase = parent_name.partition(" ")
    return f"{STAGES[stage].makes} of {phase}" if phase else STAGES[stage].makes


def _steps_done(folder: Path) -> int | None:
    every = checkpoints_anywhere(folder / CHECKPOINTS_FOLDER)
    return step_of(every[-1]) if every else None
