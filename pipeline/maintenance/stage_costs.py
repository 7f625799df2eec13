"""Estimates of what a stage costs, rows, time and disk, by a finished output like its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.model_files import CHECKPOINTS_FOLDER, EVENTS_FILE, checkpoints_anywhere
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import MODEL_STAGES
from pipeline.maintenance.inventory import folder_bytes

_TAIL = 2**18  # bytes at the end of an event log, in which the last speed stands

# The beginnings of changes after which an earlier output says nothing of the number of rows, of the
# time, or of the bytes of a row.
_OTHER_INPUT = ("content of", "download.urls", "download.images", "download.captions")
_OTHER_TIME: dict[str, tuple[str, ...]] = {
    "download": ("download.image_size", "download.image_format"),
    "encode": (
        *("download.image_size", "encode.text", "encode.clip", "encode.vae", "content of encode"),
        "encode.flips",
    ),
    "train": ("download.image_size", "encode.vae", "encode.text", "model.", "train.precision"),
    "distill": (
        *("download.image_size", "encode.vae", "encode.text", "model.", "train.precision"),
        *("distill.teacher_steps", "distill.sample_steps", "distill.guidance"),
    ),
    "evaluate": (
        *("download.image_size", "encode.vae", "encode.clip", "model.", "distill."),
        *("evaluate.steps", "evaluate.guidance", "evaluate.solver", "evaluate.precision"),
        "evaluate.features",
    ),
}
_OTHER_BYTES: dict[str, tuple[str, ...]] = {
    "download": ("download.image_", "download.jpeg_quality", "download.keep_columns"),
    "encode": (
        *("encode.text", "encode.token_dtype", "encode.clip", "encode.vae", "content of encode"),
        *("encode.posterior", "encode.flips", "encode.latent_dtype", "download.image_size"),
    ),
    "train": ("model.", "train.optimizer", "train.ema_decay", "train.score"),
    "distill": ("model.", "train.optimizer", "distill.ema", "train.ema_decay"),
    "evaluate": ("evaluate.features", "evaluate.grid", "download.image_size"),
}
UNKNOWN_INPUT = "unknown input"  # a change: what the nearest output was made from is gone


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage takes, where outputs like its own say it, else None."""

    rows: int | None = None
    """Rows of its output."""
    seconds: float | None = None
    bytes: int | None = None
    """On disk, at its end."""


UNKNOWN = StageCost()


def cost_of(output: Manifest) -> StageCost:
    """What an output took."""
    return cost_like(output, output.settings, (), {})


def cost_like(
    nearest: Manifest,
    settings: Mapping[str, Any],
    changes: Collection[str],
    inputs: Mapping[str, StageCost],
    first_step: int = 0,
) -> StageCost:
    """What an output with these settings will take, by the nearest one. `changes` are the names of
    the settings in which they or their inputs differ, `inputs` the costs of parents that are made
    first, too; `first_step` is that at which a training begins."""
    has_time = not _has(changes, (UNKNOWN_INPUT, *_OTHER_TIME[nearest.stage]))
    if nearest.stage in MODEL_STAGES:
        seconds = None
        if has_time:
            seconds = _seconds_of_training(nearest, settings, first_step)
        is_alike = not _has(changes, _OTHER_BYTES[nearest.stage])
        return StageCost(nearest.rows, seconds, _bytes_of_training(nearest) if is_alike else None)
    rows = _rows(nearest, settings, changes, inputs)
    if rows is None:
        return UNKNOWN
    share = rows / nearest.rows if nearest.rows else 1.0
    of_new_model = [name for name in MODEL_STAGES if name in inputs]
    has_time &= all(inputs[name].seconds is not None for name in of_new_model)
    is_alike = not _has(changes, (UNKNOWN_INPUT, *_OTHER_BYTES[nearest.stage])) and all(
        cost.bytes is not None for name, cost in inputs.items() if name not in MODEL_STAGES
    )
    size = sum(record.bytes for shard in nearest.shards for record in shard.files.values())
    seconds = nearest.seconds * share if has_time else None
    return StageCost(rows, seconds, round(size * share) if is_alike else None)


def rest_of_training(settings: Mapping[str, Any], folder: Path, done_steps: int) -> StageCost:
    """What a training takes that was interrupted in this folder after these steps. The disk that
    it needs is mostly filled."""
    return StageCost(seconds=_seconds_of_steps(settings, folder, done_steps))


def last_speed(folder: Path) -> float | None:
    """The last images per second of the training in a folder; None if it logged none."""
    try:
        with (folder / EVENTS_FILE).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _TAIL))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            speed = json.loads(line)["values"]["images_per_s"]
        except (ValueError, KeyError, TypeError):  # another event, or damaged by a kill
            continue
        if isinstance(speed, int | float) and speed > 0:
            return float(speed)
    return None


def _has(changes: Collection[str], beginnings: tuple[str, ...]) -> bool:
    return any(name.startswith(beginnings) for name in changes)


def _rows(
    nearest: Manifest,
    settings: Mapping[str, Any],
    changes: Collection[str],
    inputs: Mapping[str, StageCost],
) -> int | None:
    """How many rows the output will have, as far as that follows from the nearest one."""
    if nearest.stage == "encode" and "download" in inputs:
        return inputs["download"].rows
    if nearest.stage == "download" and _has(changes, _OTHER_INPUT):
        return None
    name = {"download": "limit", "evaluate": "prompts"}.get(nearest.stage, "")
    before, now = nearest.settings.get(name), settings.get(name)
    if before == now:
        return nearest.rows
    if now is None:
        return None  # all rows of the table, of which the nearest took a part
    if before is None or nearest.rows < before:
        return int(min(now, nearest.rows))  # of all that there are
    return int(now)


def _seconds_of_training(
    nearest: Manifest, settings: Mapping[str, Any], first_step: int
) -> float | None:
    """The steps that are left at the speed of the nearest training, and its start. The time in its
    manifest is that of its last process alone."""
    steps = _seconds_of_steps(settings, nearest.folder, first_step)
    if steps is None:
        return None
    its_steps = _seconds_of_steps(nearest.settings, nearest.folder, 0) or 0.0
    return steps + max(0.0, nearest.seconds - its_steps)


def _seconds_of_steps(settings: Mapping[str, Any], folder: Path, done_steps: int) -> float | None:
    speed = last_speed(folder)
    images = max(0, settings["steps"] - done_steps) * settings["batch_size"]
    return images / speed if speed else None


def _bytes_of_training(nearest: Manifest) -> int | None:
    """The bytes of a training's folder; None if its checkpoints were removed, which are most of
    it."""
    if not checkpoints_anywhere(nearest.folder / CHECKPOINTS_FOLDER):
        return None
    return folder_bytes(nearest.folder)
