"""Sections on training steps: eager and compiled, optimizers, and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from data_catalog.model_files import checkpoints
from pipeline.compute.ranks import ALONE
from pipeline.config.run import RunConfig
from pipeline.train.checkpoint_writer import CheckpointWriter
from pipeline.train.checkpoints import resume
from pipeline.train.loop import TrainState
from pipeline.train.optimizers import hidden_matrices
from tools.gpu_check.data import make_encodings, scratch_folder, training_loop
from tools.gpu_check.machine import Figures, Machine, bf16_peak
from tools.gpu_check.steps import step_of, step_tflop


def train(device: str) -> Figures:
    """Steps of the model at its batch size: as they are, compiled, and with checkpoint_blocks."""
    machine = Machine(device)
    config = machine.config()
    yield "batch_size", config.train.batch_size
    yield "gflop_per_image", 1e3 * step_tflop(config) / config.train.batch_size
    peak = bf16_peak(machine)
    yield "bf16_peak_tflop_per_s", round(peak, 3)
    for name in ("eager", "compiled"):
        machine.forget_peak()
        state = machine.state(config)
        if name == "compiled":
            machine.compile(state)
        yield name, _step_figures(machine, config, state, peak)
        yield f"{name}_synchronizations", _synchronizations(machine, config, state)
    yield "busy_share", machine.busy_share(step_of(machine, state, config), calls=5)
    config = machine.config("train.checkpoint_blocks=true")
    state = machine.state(config)
    machine.forget_peak()
    yield "eager_with_checkpoint_blocks", _step_figures(machine, config, state, peak)


def _step_figures(
    machine: Machine, config: RunConfig, state: TrainState, peak: float
) -> dict[str, Any]:
    step = step_of(machine, state, config)
    started = time.perf_counter()
    step().item()
    first_s = time.perf_counter() - started
    ms = machine.milliseconds(step, round_s=0.8)
    rate = step_tflop(config) / ms * 1e3
    return {
        "first_step_s": round(first_s, 2),
        "ms": round(ms, 3),
        "images_per_s": round(config.train.batch_size / ms * 1e3, 1),
        "tflop_per_s": round(rate, 4),
        "share_of_bf16_peak": round(rate / peak, 4),
        "host_ms": round(machine.host_milliseconds(step), 3),
        "memory_gib": machine.peak_gib(),
    }


def _synchronizations(
    machine: Machine, config: RunConfig, state: TrainState
) -> dict[str, Any] | None:
    """How often a step of the training loop, with its inputs from memory-mapped shards, waits."""
    with scratch_folder() as scratch:
        encodings = make_encodings(scratch / "encodings", config, 16 * config.train.batch_size)
        steps = training_loop(encodings, state, config, machine.device)
        for _ in range(2):
            next(steps)
        where = machine.synchronizations(lambda: next(steps))
    return None if where is None else {"count": len(where), "where": sorted(set(where))}


def optimizers(device: str) -> Figures:
    """One update of all weights, with random gradients."""
    machine = Machine(device)
    for name in ("adamw", "muon"):
        config = machine.config(f"train.optimizer={name}")
        state = machine.state(config)
        for weight in state.denoiser.parameters():
            weight.grad = torch.randn_like(weight)
        figures = _update_figures(machine, state.optimizer.step)
        if name == "adamw":
            yield "adamw_fused", figures
            continue
        yield "muon_in_stacks", figures
        matrices = hidden_matrices(state.denoiser)
        torch_muon = torch.optim.Muon(matrices, lr=1e-4, adjust_lr_fn="match_rms_adamw")
        adamw = state.optimizer.parts[1]

        def both(muon: Any = torch_muon, adamw: Any = adamw) -> None:
            muon.step()
            adamw.step()

        yield "muon_of_torch", _update_figures(machine, both)
    average = state.averages[0]
    ms = machine.milliseconds(lambda: average.update(state.denoiser, 0.999))
    yield "average_ms", round(ms, 3)
    weights = list(state.denoiser.parameters())
    ms = machine.milliseconds(lambda: nn.utils.clip_grad_norm_(weights, 1.0))
    yield "clipping_ms", round(ms, 3)


def _update_figures(machine: Machine, update: Callable[[], object]) -> dict[str, float]:
    return {
        "ms": round(machine.milliseconds(update), 3),
        "host_ms": round(machine.host_milliseconds(update), 3),
    }


def checkpoint(device: str) -> Figures:
    """A checkpoint: how long training waits for its copy, until it is written, and to resume."""
    machine = Machine(device)
    config = machine.config()
    state = machine.state(config)
    step_of(machine, state, config)().item()
    with scratch_folder() as scratch, CheckpointWriter(scratch / "checkpoints", ALONE) as writer:
        folder, waits = scratch / "checkpoints", list[float]()
        for _ in range(2):  # the first also allocates pinned memory
            started = time.perf_counter()
            writer.save(state)
            waits.append(round(time.perf_counter() - started, 4))
            writer.wait()
            written = round(time.perf_counter() - started, 3)
        yield "first_copy_s", waits[0]
        yield "copy_s", waits[1]
        yield "write_s", written
        yield "megabytes", round(checkpoints(folder)[-1].stat().st_size / 1e6, 1)
        started = time.perf_counter()
        resume(state, folder, machine.device)
        machine.wait()
        yield "resume_s", round(time.perf_counter() - started, 3)
