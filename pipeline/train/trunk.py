"""The trunk of a training, and the checkpoint of another training with which it begins. Imports no
torch, so that the estimate of a run knows it too."""

from __future__ import annotations

from pathlib import Path

from data_catalog.model_files import (
    CHECKPOINTS_FOLDER,
    Trunk,
    checkpoint_to_continue,
    checkpoints_anywhere,
    read_trunk,
    step_of,
)
from pipeline.stages.run_inputs import StageRun


def trunk_of(run: StageRun) -> Trunk | None:
    """The trunk of a training; None if every step depends on the number of steps."""
    config = run.config.train
    if config.lr_schedule != "constant":
        return None
    fingerprint = run.fingerprint_without("steps", "decay_steps")
    return Trunk(fingerprint=fingerprint, steps=config.trunk_steps)


def checkpoints_on_trunk(trunk: Trunk, out: Path) -> list[Path]:
    """The checkpoints of a trunk in other outputs, that of most steps first."""
    sources: list[Path] = []
    for other in sorted(out.parent.glob("*")):
        theirs = read_trunk(other) if other.name != out.name else None
        if theirs and theirs.fingerprint == trunk.fingerprint:
            last = min(trunk.steps, theirs.steps)
            every = checkpoints_anywhere(other / CHECKPOINTS_FOLDER)
            sources += [path for path in every if step_of(path) <= last]
    return sorted(sources, key=step_of, reverse=True)


def checkpoint_to_begin_with(run: StageRun) -> Path | None:
    """The checkpoint of another training with which this one would begin, if it has none of its own
    and that one is whole. Raises NoCheckpoint if train.continue_from names none."""
    trunk = trunk_of(run)
    if trunk and (sources := checkpoints_on_trunk(trunk, run.folder)):
        return sources[0]
    chosen = run.config.train.continue_from
    return checkpoint_to_continue(chosen) if chosen else None
