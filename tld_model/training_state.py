"""Checkpoint files of a training: reading its state, with every byte verified."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from tld_model.checkpoint import TrainedEncoders

LAYOUT = 1  # raised by hand when what a checkpoint holds changes its meaning


class DamagedState(ValueError):
    """A checkpoint whose content is not what was written."""


class _StoredOptimizer(BaseModel):
    """The state of an optimizer: names and tensors for the number of each weight."""

    state: dict[int, dict[str, Any]]


class StoredState(BaseModel):
    """A checkpoint of a training, with what its training was."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    model: dict[str, Any] | None = None
    """Settings of the model; None in checkpoints of earlier versions."""
    encoders: TrainedEncoders = TrainedEncoders()
    denoiser: dict[str, Any]
    averages: dict[str, Any]
    """Decay, as text, -> weights."""
    optimizer: _StoredOptimizer


def describe_training_state(path: Path) -> StoredState:
    """A checkpoint, every byte of which is verified. Raises DamagedState if a training of this
    version of the project cannot continue from it, and OSError if it cannot be read."""
    content = read_training_state(path, mapped=True)
    if problem := state_problem(content):
        raise DamagedState(problem)
    try:
        return StoredState.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedState(f"it does not contain a training state: see {where}") from error


def read_training_state(path: Path, device: str = "cpu", *, mapped: bool = False) -> Any:
    """The content of a checkpoint after verifying every byte. If it is `mapped`, its tensors stay
    on the disk until they are used.

    torch.save writes a zip file with a CRC-32 of each tensor, which torch.load does not verify.

    Raises:
        DamagedState: a byte is wrong.
        PermissionError, FileNotFoundError: the file cannot be read, which says nothing of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise DamagedState(f"its part {broken} has the wrong checksum")
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except (PermissionError, FileNotFoundError, DamagedState):
        raise
    except Exception as error:
        # Flipped bits surface as nearly any error: BadZipFile, KeyError, UnpicklingError, …
        raise DamagedState(str(error).partition("\n")[0]) from error


def state_problem(content: Any) -> str:
    """Why this is no training state of this version of the project, or ""."""
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        return "it does not contain a training state"
    layout = content.get("layout", LAYOUT)  # the first checkpoints did not record it
    if layout != LAYOUT:
        newer = isinstance(layout, int) and layout > LAYOUT
        return f"it has layout {layout}, of {'a newer' if newer else 'another'} version of tld"
    return ""
