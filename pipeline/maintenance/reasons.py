"""Reasons why the stages of a run are not fresh: what differs from the nearest existing output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.model_files import (
    CHECKPOINTS_FOLDER,
    EVENTS_FILE,
    checkpoints_anywhere,
    read_events,
    step_of,
)
from data_catalog.storage.lineage import finished_outputs, parent
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import MODEL_STAGES, Workspace
from pipeline.maintenance.inventory import place
from pipeline.stages.dag import STAGES, StageSpec, parents_among
from pipeline.stages.freshness import EVALUATE_DISTILLED, StageStatus, phase_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.setting_changes import SettingChange, recorded_settings, setting_changes


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
    seconds: float | None = None
    """How long it will take, by the time of the nearest output; None if that says little."""

    @property
    def is_fresh(self) -> bool:
        return self.status.state == "fresh"


def stage_reasons(inputs: RunInputs) -> list[StageReason]:
    """All stages of all phases, in the order in which they run, and the distilled model's
    evaluation. Changes nothing."""
    reasons: list[StageReason] = []
    earlier: dict[str, dict[str, StageReason]] = {}
    for phase, statuses in zip(inputs.chain, phase_statuses(inputs), strict=True):
        in_phase: dict[str, StageReason] = {}
        for spec in phase.stages.values():
            parents = parents_among(spec, in_phase, earlier)
            in_phase[spec.name] = _reason(phase, spec, statuses[spec.name], parents)
        if (status := statuses.get(EVALUATE_DISTILLED)) and (distilled := phase.distilled):
            spec = distilled.stages["evaluate"]
            parents = parents_among(spec, in_phase, earlier)
            in_phase[EVALUATE_DISTILLED] = _reason(distilled, spec, status, parents)
        reasons += in_phase.values()
        earlier[phase.config.phase or ""] = in_phase
    return reasons


def _reason(
    inputs: RunInputs, spec: StageSpec, status: StageStatus, parents: Mapping[str, StageReason]
) -> StageReason:
    waits_for = tuple(parent.status.title for parent in parents.values() if not parent.is_fresh)
    if status.state == "damaged":
        return StageReason(status, spec.makes, waits_for)
    settings = inputs.settings(spec.name)
    if own := status.manifest:
        seconds = _time(settings, own, ())
        return StageReason(status, spec.makes, waits_for, own, seconds=seconds)
    if status.state == "interrupted" and status.folder:
        steps = _steps_done(status.folder)
        seconds = None
        if spec.name in MODEL_STAGES:
            seconds = _training_time(settings, status.folder, steps or 0)
        return StageReason(status, spec.makes, done_steps=steps, seconds=seconds)
    now = _identity(spec.name, spec.version, settings)
    outputs = sorted(
        finished_outputs(Workspace(inputs.config.folder), spec.name), key=_age, reverse=True
    )
    if not outputs:
        return StageReason(status, spec.makes, waits_for)
    nearest = min(outputs, key=lambda output: _distance(output, now, parents))
    changes = setting_changes(_settings(nearest), now)
    return StageReason(
        status,
        spec.makes,
        waits_for,
        nearest,
        (*changes, *_input_changes(nearest, parents)),
        seconds=_time(settings, nearest, changes),
    )


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


def _makes(parent_name: str) -> str:
    """What a parent is: encodings, or encodings of first."""
    stage, _, phase = parent_name.partition(" ")
    return f"{STAGES[stage].makes} of {phase}" if phase else STAGES[stage].makes


def _time(
    settings: Mapping[str, Any], nearest: Manifest, changes: tuple[SettingChange, ...]
) -> float | None:
    if nearest.stage not in MODEL_STAGES:
        return nearest.seconds
    if any(change.name.startswith(("model.", "train.precision")) for change in changes):
        return None
    steps = _training_time(settings, nearest.folder, 0)
    if steps is None:
        return None
    its_steps = _training_time(nearest.settings, nearest.folder, 0) or 0
    return steps + max(0, nearest.seconds - its_steps)  # its start, if it was never resumed


def _training_time(settings: Mapping[str, Any], folder: Path, done_steps: int) -> float | None:
    """The seconds of the steps that are left, at the last speed of the training in this folder. The
    time in its manifest is that of its last process alone."""
    speeds = [
        event["values"]["images_per_s"]
        for event in read_events(folder / EVENTS_FILE)
        if event["kind"] == "metrics" and event["values"].get("images_per_s")
    ]
    images = (settings["steps"] - done_steps) * settings["batch_size"]
    return float(images / speeds[-1]) if speeds else None


def _steps_done(folder: Path) -> int | None:
    every = checkpoints_anywhere(folder / CHECKPOINTS_FOLDER)
    return step_of(every[-1]) if every else None
