"""A training's state on disk: written by rename, checked when read, the newest few kept.

A checkpoint is that of the plain denoiser, whatever wraps it and on however many ranks it is
spread. Knows nothing of what a step does.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_catalog.storage.files import flush_folder, replacing, unfinished_files
from pipeline.compute.ranks import ALONE, Ranks, full_tensor
from pipeline.train.checkpoint_fit import LAYOUT, misfit
from pipeline.train.loop import TrainState

_KEEP = 2


class CheckpointNotWritten(RuntimeError):
    """The disk did not take a checkpoint; the one before is whole."""


class CheckpointNotRead(RuntimeError):
    """A checkpoint that this user may not read: nothing is wrong with it."""


class _Unusable(ValueError):
    """A checkpoint that a training cannot resume from; the message says why."""

    suffix: ClassVar[str]
    is_what: ClassVar[str]


class _Damaged(_Unusable):
    """A checkpoint that is not what was written."""

    suffix = ".damaged"
    is_what = "is damaged"


class _OfAnotherLayout(_Unusable):
    """A whole checkpoint that does not fit this training: of another version, or of changed
    settings."""

    suffix = ".unfit"
    is_what = "does not fit this training"


def save_checkpoint(state: TrainState, folder: Path, ranks: Ranks = ALONE) -> None:
    """Write the state by rename, then drop all but the newest checkpoints. Every rank must call it;
    one writes. Raises CheckpointNotWritten."""
    content = {
        "layout": LAYOUT,
        "step": state.step,
        "denoiser": whole_weights(state.denoiser),
        "averages": {
            str(average.decay): whole_weights(average.denoiser) for average in state.averages
        },
        "optimizer": _whole_moments(state.optimizer.state_dict()),
    }
    if not ranks.leads:
        return
    try:
        folder.mkdir(
            exist_ok=True
        )  # not its parents: an output that was removed must not begin anew here
        flush_folder(folder.parent)
        with replacing(_path(folder, state.step)) as unfinished, unfinished.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        if cause := _disk_error(error):
            raise CheckpointNotWritten(_explain(cause, content, folder)) from error
        raise
    for old in [
        *checkpoints(folder)[:-_KEEP],
        *folder.glob("*.damaged"),
        *unfinished_files(folder),
    ]:
        if old.is_file():
            old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def step_of(checkpoint: Path) -> int:
    """How many steps were done when it was written."""
    return int(checkpoint.stem.removeprefix("step-"))


def resume(
    state: TrainState,
    folder: Path,
    device: str,
    ranks: Ranks = ALONE,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Put the state where the newest usable checkpoint left it; without one it stays at step 0.

    Those that cannot be used are set aside, with a warning that says why and what was lost: damaged
    ones until the next checkpoint, whole ones that do not fit for good. The same device and rank
    count are not needed.

    The leading rank chooses: on a disk that several machines share, their lists of its files may
    differ for a while.

    Raises:
        CheckpointNotRead: this user may not read one of them.
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
        _load(state, _read(_path(folder, chosen), device))
    for path, problem in unusable.items():
        lost = step_of(path) - state.step
        onward = f"going on from step {state.step}" if state.step else "starting again"
        aside = path.with_suffix(problem.suffix)
        os.replace(path, aside)
        where = f", kept as {aside.name}" if isinstance(problem, _OfAnotherLayout) else ""
        warn(
            f"{path.name} {problem.is_what} ({problem}){where}: {onward}; {lost} steps are done "
            "again"
        )


def _load(state: TrainState, content: dict[str, Any]) -> None:
    """All of it or nothing. Raises _OfAnotherLayout."""
    if problem := misfit(state, content):
        raise _OfAnotherLayout(problem)
    state.denoiser.load_state_dict(content["denoiser"])
    for average in state.averages:
        average.denoiser.load_state_dict(content["averages"][str(average.decay)])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step = int(content["step"])


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model, gathered on the CPU where it is spread over ranks; then every rank
    must ask."""
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
    """The content of a checkpoint, every byte of it checked. Raises _Damaged.

    torch.save writes a zip file with a CRC-32 of each tensor, at which torch.load does not look.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise _Damaged(f"its part {broken} is not what was written")
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except PermissionError as error:
        raise CheckpointNotRead(f"{path} may not be read by this user: {error.strerror}") from error
    except (
        Exception
    ) as error:  # flipped bits surface as nearly anything: BadZipFile, KeyError, UnpicklingError, …
        raise (
            error if isinstance(error, _Damaged) else _Damaged(str(error).partition("\n")[0])
        ) from error
    return content


def _disk_error(error: OSError | RuntimeError) -> OSError | None:
    """What the disk said; torch.save hides it behind an error of its own."""
    hidden = error if isinstance(error, OSError) else error.__context__
    return hidden if isinstance(hidden, OSError) else None


def _explain(cause: OSError, content: dict[str, Any], folder: Path) -> str:
    """What a user can do about a checkpoint that was not written."""
    needed = sum(tensor.nbytes for tensor in _tensors(content))
    remaining = checkpoints(folder)
    onward = (
        f" {remaining[-1].name} is whole: the same command goes on from it." if remaining else ""
    )
    return (
        f"the checkpoint of step {content['step']} was not written: {cause.strerror}. It needs "
        f"{_megabytes(needed)} in "
        f"{folder}, where {_megabytes(shutil.disk_usage(folder).free)} are free.\n"
        f"Make room there for {_KEEP + 1} checkpoints.{onward}"
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
