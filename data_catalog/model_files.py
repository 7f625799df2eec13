"""File names, event log and checkpoints of a trained model's folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from data_catalog.storage.cached_files import ensure_local, iter_cached
from data_catalog.storage.object_access import ObjectStorageError

MODEL_FILE = "denoiser.safetensors"
EVENTS_FILE = "events.jsonl"
TRUNK_FILE = "trunk.json"
CHECKPOINTS_FOLDER = "checkpoints"
BEST: Final = "best"
Average = int | Literal["best"]
"""An average of the weights: its number in train.ema_decay, or that of the best scored step."""

_LAST_PART = 1 << 18  # bytes of an event log
_CHECKPOINT = re.compile(r"step-(\d+)\.pt")


class Trunk(BaseModel):
    """The steps of a training before its decay, which it shares with trainings of other lengths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    """SHA-256 of everything that these steps depend on: equal trunks have equal checkpoints."""
    steps: int
    """Number of these steps. Later checkpoints of the training are of its decay."""


class NoCheckpoint(ValueError):
    """There is no checkpoint where a setting says."""

    exit_code = 2


def average_file(average: Average) -> str:
    """The file name of one of the weight averages. Number 0 is the model itself."""
    if average == BEST:
        return f"denoiser-{BEST}.safetensors"
    return f"denoiser-ema{average}.safetensors" if average else MODEL_FILE


def best_path(folder: Path, step: int) -> Path:
    """The path of the average of a scored step in a folder of checkpoints."""
    return folder / f"{BEST}-{step:08d}.safetensors"


def model_file(path: Path) -> Path:
    """The file of a denoiser, given the file itself or its folder."""
    path = path.expanduser()
    return ensure_local(path / MODEL_FILE if path.is_dir() else path)


def read_trunk(output: Path) -> Trunk | None:
    """The trunk of a training's folder, or None if it has none or the file cannot be read."""
    try:
        text = ensure_local(output / TRUNK_FILE).read_text(encoding="utf-8")
        return Trunk.model_validate_json(text)
    except (OSError, ValueError, ObjectStorageError):
        return None


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return _ordered(folder.glob("step-*.pt"))


def checkpoints_anywhere(folder: Path) -> list[Path]:
    """The checkpoints in a folder and those that are only in object storage, oldest first."""
    return _ordered({*folder.glob("step-*.pt"), *iter_cached(folder)})


def is_checkpoint(path: Path) -> bool:
    """Whether this is the name of a checkpoint."""
    return _CHECKPOINT.fullmatch(path.name) is not None


def step_of(checkpoint: Path) -> int:
    """The number of steps done when the checkpoint was written, by its name."""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def checkpoint_to_continue(path: Path) -> Path:
    """The checkpoint at a path: the file itself or, of a model's folder, the newest one before the
    decay or, without such a one, the newest. Raises NoCheckpoint."""
    path = path.expanduser()
    if not path.is_dir():
        if not path.exists():
            raise NoCheckpoint(f"there is no file or folder {path}")
        return path
    every = checkpoints_anywhere(path / CHECKPOINTS_FOLDER)
    if not every:
        weights = path / MODEL_FILE
        onward = f"; for its weights alone, set train.init_from={path}" if weights.exists() else ""
        raise NoCheckpoint(
            f"{path} has no checkpoint in its folder {CHECKPOINTS_FOLDER}: it is no model's "
            "folder, or `tld clean` has removed its checkpoints (--undo puts them back)" + onward
        )
    trunk = read_trunk(path)
    before_decay = [file for file in every if trunk and step_of(file) <= trunk.steps]
    return ensure_local((before_decay or every)[-1])


def read_events(path: Path) -> list[dict[str, Any]]:
    """The metrics and artifact events of an event log that carry a step. Lines that are not JSON
    are skipped, because a kill, a full disk or a failing disk damaged them."""
    if not path.exists():
        return []
    return _events(path.read_text(errors="replace", encoding="utf-8").splitlines())


def read_last_events(path: Path) -> list[dict[str, Any]]:
    """Those in the last part of an event log, so that a long one is read at once; [] if there is
    none."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _LAST_PART)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return _events(lines[1:] if start else lines)


def _events(lines: Iterable[str]) -> list[dict[str, Any]]:
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event.get("kind") in ("metrics", "artifact") and "step" in event:
            events.append(event)
    return events


def _ordered(paths: Iterable[Path]) -> list[Path]:
    return sorted((path for path in paths if is_checkpoint(path)), key=step_of)
