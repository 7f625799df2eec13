"""Sections on training steps: eager and compiled, their depthwise convolution, optimizers, and
checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.compute.ranks import ALONE
from pipeline.config.run import RunConfig
from pipeline.train.checkpoint_writer import CheckpointWriter
from pipeline.train.checkpoints import checkpoints, resume
from pipeline.train.loop import TrainState
from pipeline.train.optimizers import hidden_matrices
from tld_model.layers import FeedForward
from tools.gpu_check.data import make_encodings, scratch_folder, training_loop
from tools.gpu_check.machine import Figures, Machine, bf16_peak
from tools.gpu_check.steps import step_of, step_tflop


def train(device: str) -> Figures:
    """Steps of the model at its batch size, as they are and compiled."""
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


def depthwise(device: str) -> Figures:
    """The 3x3 depthwise convolution and GELU of one block, forward and backward: as the model has
    it, on a channels-last view of the tokens, and on contiguous channels."""
    machine = Machine(device)
    config = machine.config()
    model, rows = config.model, config.model.latent_size // config.model.patch_size
    layer = FeedForward(model.width, model.mlp_multiplier).to(machine.device)
    layer.expand, layer.contract = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    channels = layer.depthwise.in_channels
    yield "channels", channels
    yield "layers", model.layers
    shape = (config.train.batch_size, rows * rows, channels)

    def channels_last(tokens: torch.Tensor) -> torch.Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (rows, rows))  # [b, c, r, s], a view
        return F.gelu(layer.depthwise(x)).flatten(2).transpose(1, 2)

    def contiguous(tokens: torch.Tensor) -> torch.Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (rows, rows)).contiguous()
        return F.gelu(layer.depthwise(x)).flatten(2).transpose(1, 2).contiguous()

    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "model": layer,
        "channels_last": channels_last,
        "contiguous": contiguous,
    }
    for dtype in (torch.bfloat16, torch.float32):
        layer.to(dtype)
        tokens = torch.randn(shape, device=machine.device).to(dtype).requires_grad_()
        gradient = torch.randn(shape, device=machine.device).to(dtype)
        for name, way in ways.items():
            figures = _forward_and_backward(machine, way, tokens, gradient)
            figures["step_ms"] = round(figures["both_ms"] * model.layers, 3)
            yield f"{name}_{str(dtype).removeprefix('torch.')}", figures


def _forward_and_backward(
    machine: Machine,
    layer: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    gradient: torch.Tensor,
) -> dict[str, float]:
    def forward() -> None:
        with torch.no_grad():
            layer(tokens)

    def both() -> None:
        tokens.grad = None
        layer(tokens).backward(gradient)

    forward_ms, both_ms = machine.milliseconds(forward), machine.milliseconds(both)
    return {
        "forward_ms": round(forward_ms, 4),
        "both_ms": round(both_ms, 4),
        # Read and written once forward; the input, its gradient and the output's once backward.
        "gb_per_s": round(5 * tokens.nbytes / both_ms / 1e6, 1),
    }


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
