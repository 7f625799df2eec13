"""The section on the training stage: what it adds to bare steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.train.fast_blocks import speed_up_blocks
from pipeline.train.stage import train
from tools.gpu_check.data import make_encodings, scratch_folder, training_loop
from tools.gpu_check.machine import Figures, Machine
from tools.gpu_check.steps import step_of

_STAGE_S = 20.0
_LOG_ENTRIES = 8


@dataclass(slots=True)
class SpeedLog:
    """A Tracker that keeps the speeds and notes that training logs."""

    run_id: str = ""
    speeds: list[tuple[int, float]] = field(default_factory=list)  # after so many steps
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if "images_per_s" in values:
            self.speeds.append((step, values["images_per_s"]))

    def artifact(self, path: Path, folder: str = "") -> None:
        pass

    def image(self, path: Path, name: str, step: int) -> None:
        pass

    def progress(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.notes.append(note)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def stage(device: str) -> Figures:
    """The training stage in its own process for some seconds, with one checkpoint and one grid of
    samples, against bare steps and against the training loop in this process."""
    machine = Machine(device)
    config = machine.config()
    size = config.train.batch_size
    with scratch_folder() as folder:
        started = time.perf_counter()
        encodings = make_encodings(folder / "encodings", config, machine.size(20_000, 200))
        yield "made_encodings_s", round(time.perf_counter() - started, 1)
        bare_ms, loop = _bare_and_loop(machine, config, encodings)
        yield "bare_step_ms", round(bare_ms, 3)
        loop_ms = machine.milliseconds(loop, round_s=0.5)
        yield "loop_step_ms", round(loop_ms, 3)
        yield "loop_over_bare_steps", round(bare_ms / loop_ms, 4)
        steps = machine.size(max(24, round(_STAGE_S * 1e3 / bare_ms)), 8)
        log = SpeedLog()
        started = time.perf_counter()
        settings = _stage_settings(config, device, steps)
        (folder / "model").mkdir()
        train(encodings, settings.train, config.model, folder / "model", log)
        yield "seconds", round(time.perf_counter() - started, 1)
        yield "steps", steps
        yield "depthwise", [note for note in log.notes if note.startswith("depthwise")]
        yield "warnings", log.warnings
        intervals = speeds_between(log.speeds, size)
        yield "images_per_s", {str(step): round(speed, 1) for step, speed in intervals}
        fastest = max(speed for _, speed in intervals)
        yield "best_over_bare_steps", round(fastest * bare_ms / size / 1e3, 4)
        yield "busy_share", machine.busy_share(loop, calls=10)


def _bare_and_loop(
    machine: Machine, config: RunConfig, encodings: Manifest
) -> tuple[float, Callable[[], object]]:
    """The milliseconds of a step whose inputs are on the device, computed as the stage does, and a
    step of the loop that prepares them."""
    state = machine.state(config)
    if machine.is_gpu:
        speed_up_blocks(state.denoiser, config.train, machine.device)
    else:
        machine.compile(state)
    bare_ms = machine.milliseconds(step_of(machine, state, config), round_s=0.5)
    state.step = 0
    steps = training_loop(encodings, state, config, machine.device)
    return bare_ms, lambda: next(steps)


def _stage_settings(config: RunConfig, device: str, steps: int) -> RunConfig:
    values = {
        "steps": steps,
        "log_every": max(1, steps // _LOG_ENTRIES),
        "checkpoint_every": steps // 2,
        "validate_every": steps,
        "sample_every": steps,
        "device": device,
    }
    train = config.train.model_copy(update=values)
    return config.model_copy(update={"train": train})


def speeds_between(speeds: list[tuple[int, float]], batch_size: int) -> list[tuple[int, float]]:
    """The speed in each interval between log entries, whose speeds count from the start."""
    elapsed = [(step, step * batch_size / speed) for step, speed in speeds]
    return [
        (later, (later - earlier) * batch_size / (until - since))
        for (earlier, since), (later, until) in pairwise(elapsed)
    ]
