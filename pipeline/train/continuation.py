"""Continuation of trainings: a checkpoint of another training as the beginning of this one.

With a constant learning rate the steps before the decay, the trunk, depend neither on the number of
steps nor on the length of the decay, and every random choice follows from seed and step. So
trainings that differ in these two settings alone have equal checkpoints on their trunks, and a
longer one begins with a checkpoint of a shorter one. In all other cases train.continue_from names
the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_catalog.model_files import (
    CHECKPOINTS_FOLDER,
    MODEL_FILE,
    TRUNK_FILE,
    NoCheckpoint,
    Trunk,
    checkpoint_path,
    checkpoint_to_continue,
    checkpoints,
    read_trunk,
    step_of,
)
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.digests import file_digest
from data_catalog.storage.files import link_or_copy, replacing, write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.object_access import ObjectStorageError
from pipeline.config.train import TrainConfig
from pipeline.stages.contract import StageFailed, Tracker
from pipeline.stages.integrity import refuse_damaged_shards
from pipeline.stages.run_inputs import StageRun
from pipeline.train.best_average import link_best_average
from pipeline.train.events import copy_history
from pipeline.train.trunk import checkpoints_on_trunk, trunk_of
from tld_model.training_state import DamagedState, describe_training_state

Begin = Callable[[Path, Tracker], None]
"""(output folder, tracker): puts a checkpoint into the folder from which the training resumes, or
does nothing. The folder is locked."""


def begin_at_zero(_out: Path, _track: Tracker) -> None:
    """Begin with initial weights, or with those of train.init_from or of the phase before."""


def with_weights_of(before: Manifest, config: TrainConfig, track: Tracker) -> TrainConfig:
    """The training of a phase, which begins with the model of the phase before. Raises
    ManifestError if that is damaged."""
    refuse_damaged_shards(before, track)
    return config.model_copy(update={"init_from": before.file(MODEL_FILE).absolute()})


def begin_training(run: StageRun, out: Path, track: Tracker, *, from_others: bool) -> None:
    """Record the trunk of a training. If the training has no checkpoint yet, begin with one of the
    same trunk in another output, or with that of train.continue_from.

    Raises:
        StageFailed: the checkpoint of train.continue_from is gone, or changed during the run.
    """
    trunk = trunk_of(run)
    if trunk:
        write_atomically(out / TRUNK_FILE, trunk.model_dump_json() + "\n")
    if checkpoints(out / CHECKPOINTS_FOLDER):
        return
    if trunk and from_others and _continue_trunk(run, trunk, out, track):
        return
    if run.config.train.continue_from:
        _continue_chosen(run, run.config.train.continue_from, out, track)


def _continue_trunk(run: StageRun, trunk: Trunk, out: Path, track: Tracker) -> bool:
    """Begin with the newest checkpoint of the trunk that is whole. Returns whether there is one."""
    for source in checkpoints_on_trunk(trunk, out):
        step, other = step_of(source), source.parent.parent
        try:
            with replacing(_place(out, step)) as unfinished:
                link_or_copy(ensure_local(source), unfinished)
                if describe_training_state(unfinished).step != step:
                    raise DamagedState("it holds another step")
                # First, because the training resumes as soon as it has a checkpoint.
                copy_history(other, out, step)
                link_best_average(run.config.train, other, out)
        except FileNotFoundError:
            continue  # its training or `tld clean` has just removed it
        except (DamagedState, OSError, ObjectStorageError) as error:
            track.warning(f"this training cannot continue from {source}: {error}")
            continue
        steps = run.config.train.steps
        track.note(
            f"continues the training in {other} from step {step}: {step} of {steps} steps need not "
            "be repeated"
        )
        return True
    return False


def _continue_chosen(run: StageRun, chosen: Path, out: Path, track: Tracker) -> None:
    """Begin with the checkpoint of train.continue_from."""
    try:
        source = checkpoint_to_continue(chosen)
        step = describe_training_state(source).step
        with replacing(_place(out, step)) as unfinished:
            link_or_copy(source, unfinished)
            if file_digest(unfinished) != run.settings["continue_from"]:
                raise NoCheckpoint(f"{source} has changed during this run; run the command again")
    except (NoCheckpoint, DamagedState, OSError, ObjectStorageError) as error:
        raise StageFailed(f"train.continue_from={chosen}: {error}") from error
    trunk = read_trunk(source.parent.parent)
    of_decay = ", of the decay of its training," if trunk and step > trunk.steps else ""
    track.note(
        f"train.continue_from: begins with {source}{of_decay} at step {step} of "
        f"{run.config.train.steps}"
    )


def _place(out: Path, step: int) -> Path:
    """The path of a checkpoint in the output folder, whose folder of checkpoints exists then."""
    (out / CHECKPOINTS_FOLDER).mkdir(exist_ok=True)
    return checkpoint_path(out / CHECKPOINTS_FOLDER, step)
