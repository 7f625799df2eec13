"""Training checkpoints: atomic writes, the choice of one to resume from, and removal of old ones.

A checkpoint always contains the state of the plain denoiser, regardless of wrappers and of the
number of ranks that share it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_catalog.model_files import checkpoint_path, checkpoints, step_of
from data_catalog.storage.files import flush_folder, replacing, unfinished_files
from pipeline.compute.ranks import ALONE, Ranks, full_tensor
from pipeline.train.checkpoint_fit import misfit
from pipeline.train.loop import TrainState
from tld_model.training_state import LAYOUT, DamagedState, read_training_state

_KEEP = 2  # newest checkpoints


class CheckpointNotWritten(RuntimeError):
    """Writing a checkpoint failed; the previous one is intact."""


class CheckpointNotRead(RuntimeError):
    """A checkpoint that this user has no permission to read; it is not damaged."""


class _Unusable(ValueError):
    """A checkpoint from which a training cannot resume; the message says why."""

    suffix: ClassVar[str]
    is_what: ClassVar[str]


class _Damaged(_Unusable):
    """A checkpoint whose content is not what was written."""

    suffix = ".damaged"
    is_what = "is damaged"


class _OfAnotherLayout(_Unusable):
    """An undamaged checkpoint that does not fit this training: it is of another version, or of
    other settings."""

    suffix = ".unfit"
    is_what = "does not fit this training"


def checkpoint_of(state: TrainState, encoders: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of a checkpoint, with the encoders of the training. Its tensors are those of the
    state, or gathered from all ranks, each of which must call this."""
    return {
        "layout": LAYOUT,
        "step": state.step,
        "model": state.denoiser.config.model_dump(mode="json"),
        "encoders": dict(encoders or {}),
        "denoiser": whole_weights(state.denoiser),
        "averages": {
            str(average.decay): whole_weights(average.denoiser) for average in state.averages
        },
        "optimizer": _whole_moments(state.optimizer.state_dict()),
    }


def write_checkpoint(content: dict[str, Any], folder: Path, trunk_steps: int | None = None) -> None:
    """Write a checkpoint atomically, then delete all but the newest and the one at the end of the
    trunk, from which a longer training continues. Raises CheckpointNotWritten if the disk
    refuses."""
    try:
        # Without parents: an output folder that was removed must not be created again here.
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)
        path = checkpoint_path(folder, content["step"])
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        if cause := _disk_error(error):
            count = _KEEP + 1 + (trunk_steps is not None)
            raise CheckpointNotWritten(_explain(cause, content, folder, count)) from error
        raise
    for old in [
        *(path for path in checkpoints(folder)[:-_KEEP] if step_of(path) != trunk_steps),
        *folder.glob("*.damaged"),
        *unfinished_files(folder),
    ]:
        if old.is_file():
            old.unlink()


def resume(
    state: TrainState,
    folder: Path,
    device: str,
    ranks: Ranks = ALONE,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Load the newest usable checkpoint into the state; without one the state stays at step 0.

    Unusable checkpoints are renamed, with a warning that gives the reason and the number of steps
    lost. Damaged ones are deleted with the next checkpoint; undamaged ones that do not fit stay.
    The device and the number of ranks may differ from those that wrote the checkpoint.

    The leading rank chooses, because machines that share a disk may see different lists of its
    files for a while.

    Raises:
        CheckpointNotRead: this user has no permission to read one of them.
    """
    unusable: dict[Path, _Unusable] = {}
    for path in reversed(checkpoints(folder)) if ranks.leads else ():
        try:
            _load(state, _read(path, device))
            break
        except _Unusable as error:
            unusable[path] = error
    chosen = ranks.as_leader(state.step)
    if chosen != state.step:
        _load(state, _read(checkpoint_path(folder, chosen), device))
    for path, problem in unusable.items():
        lost = step_of(path) - state.step
        onward = f"resuming from step {state.step}" if state.step else "starting from step 0"
        aside = path.with_suffix(problem.suffix)
        os.replace(path, aside)
        where = f", renamed to {aside.name}" if isinstance(problem, _OfAnotherLayout) else ""
        warn(
            f"{path.name} {problem.is_what} ({problem}){where}: {onward}; {lost} steps are repeated"
        )


def _load(state: TrainState, content: dict[str, Any]) -> None:
    """Load a checkpoint completely, or raise _OfAnotherLayout and load nothing."""
    if problem := misfit(state, content):
        raise _OfAnotherLayout(problem)
    state.denoiser.load_state_dict(content["denoiser"])
    for average in state.averages:
        average.denoiser.load_state_dict(content["averages"][str(average.decay)])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step = int(content["step"])


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The full state dict of a model. If the model is sharded it is gathered on the CPU, and every
    rank must call this."""
    return {name: _gathered(weight) for name, weight in model.state_dict().items()}


def _whole_moments(optimizer: dict[str, Any]) -> dict[str, Any]:
    state = {
        number: {
            name: _gathered(value) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": state}


def _gathered(tensor: Tensor) -> Tensor:
    gathered = full_tensor(tensor)
    return tensor if gathered is tensor else gathered.cpu()


def _read(path: Path, device: str) -> dict[str, Any]:
    """The content of a checkpoint. Raises _Damaged if one of its bytes is wrong."""
    try:
        content: dict[str, Any] = read_training_state(path, device)
    except PermissionError as error:
        raise CheckpointNotRead(f"cannot read {path}: {error.strerror}") from error
    except (DamagedState, FileNotFoundError) as error:
        raise _Damaged(str(error)) from error
    return content


def _disk_error(error: OSError | RuntimeError) -> OSError | None:
    """The error of the disk, which torch.save hides behind an error of its own."""
    hidden = error if isinstance(error, OSError) else error.__context__
    return hidden if isinstance(hidden, OSError) else None


def _explain(cause: OSError, content: dict[str, Any], folder: Path, count: int) -> str:
    """Tell the user what a failed checkpoint needs and how to resume."""
    needed = sum(tensor.nbytes for tensor in _tensors(content))
    remaining = checkpoints(folder)
    onward = (
        f" {remaining[-1].name} is intact: run the same command to resume." if remaining else ""
    )
    return (
        f"could not write the checkpoint of step {content['step']}: {cause.strerror}. It needs "
        f"{_megabytes(needed)} in {folder}, where "
        f"{_megabytes(shutil.disk_usage(folder).free)} are free.\n"
        f"Free enough space there for {count} checkpoints.{onward}"
    )


def _tensors(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return (
        [tensor for branch in tree.values() for tensor in _tensors(branch)]
        if isinstance(tree, dict)
        else []
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
