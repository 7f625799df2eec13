"""The section on exactness: two processes train the same steps, and one of them resumes.

Each process is `python -m tools.gpu_check.exactness FOLDER DEVICE first|second`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data_catalog.storage.manifest import read_manifest
from pipeline.compute.devices import (
    DETERMINISTIC_ENVIRONMENT,
    compiles,
    use_deterministic_algorithms,
)
from pipeline.config.run import RunConfig
from pipeline.train.checkpoints import checkpoint_of, resume, write_checkpoint
from pipeline.train.loop import TrainState
from tools.gpu_check.data import make_encodings, scratch_folder, training_loop
from tools.gpu_check.machine import ROOT, Figures, Machine

_STEPS = 6
_CHECKPOINT = 3  # the step at which the first process saves
_TIMEOUT_S = 90


def exactness(device: str) -> Figures:
    """With train.deterministic: do two processes end with the same bits, and does one that resumes
    the other's checkpoint?"""
    machine = Machine(device)
    with scratch_folder() as folder:
        make_encodings(folder / "encodings", _config(machine), machine.size(4096, 200))
        first = _run(folder, device, "first")
        yield "first", first
        second = _run(folder, device, "second")
        yield "second", second
    yield "repeats_exactly", first["digest"] == second["digest"]
    yield "resumes_exactly", first["digest"] == second["resumed_digest"]


def _config(machine: Machine) -> RunConfig:
    return machine.config(f"train.steps={_STEPS}", "train.deterministic=true")


def _run(folder: Path, device: str, part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.gpu_check.exactness", str(folder), device, part]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **DETERMINISTIC_ENVIRONMENT},
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(folder: Path, device: str, part: str) -> None:
    """Train, and print the digest of the weights as JSON. The first process saves a checkpoint on
    its way, from which the second one trains to the end once more."""
    use_deterministic_algorithms()
    machine = Machine(device)
    config = _config(machine)
    figures: dict[str, Any] = {}
    state = _state(machine, config)
    saved = folder / "checkpoints" if part == "first" else None
    figures["step_ms"] = _train(folder, machine, config, state, saved)
    figures["digest"] = _digest(state)
    if part == "second":
        state = _state(machine, config)
        resume(state, folder / "checkpoints", machine.device)
        figures["resumed_at"] = state.step
        _train(folder, machine, config, state, None)
        figures["resumed_digest"] = _digest(state)
    print(json.dumps(figures))


def _state(machine: Machine, config: RunConfig) -> TrainState:
    state = machine.state(config)
    if compiles(config.train, machine.device):
        machine.compile(state)
    return state


def _train(
    folder: Path, machine: Machine, config: RunConfig, state: TrainState, saved: Path | None
) -> float:
    """Train to the last step. Returns the milliseconds of a step after the checkpoint."""
    encodings = read_manifest(folder / "encodings")
    assert encodings is not None, "the section made them"
    started = time.perf_counter()
    for step in training_loop(encodings, state, config, machine.device):
        if step.step == _CHECKPOINT:
            if saved is not None:
                write_checkpoint(checkpoint_of(state), saved)
            machine.wait()
            started = time.perf_counter()
    machine.wait()
    return round((time.perf_counter() - started) * 1e3 / (_STEPS - _CHECKPOINT), 3)


def _digest(state: TrainState) -> str:
    """Of the weights and their averages."""
    digest = hashlib.blake2b(digest_size=16)
    for denoiser in (state.denoiser, state.ema):
        for weight in denoiser.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy())
    return digest.hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
