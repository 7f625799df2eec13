"""The section on training in several processes, with one: DDP and FSDP over NCCL, or gloo."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from pipeline.compute.ranks import Ranks
from pipeline.train.loop import TrainState, initial_state
from pipeline.train.sharding import distribute, shard
from tools.gpu_check.machine import Figures, Machine
from tools.gpu_check.steps import step_of

_WAYS = ("alone", "ddp", "fsdp")
_STEPS = 3


def distributed(device: str) -> Figures:
    """Losses and milliseconds of a step of compiled blocks: alone, under DDP and under FSDP."""
    machine = Machine(device)
    backend = "nccl" if machine.is_gpu else "gloo"
    if not dist.is_backend_available(backend):
        yield "backend", None
        return
    yield "backend", backend
    with _process_group(backend):
        losses = dict[str, list[float]]()
        for way in _WAYS:
            figures = _steps(machine, way)
            losses[way] = figures["losses"]
            yield way, figures
    yield (
        "losses_agree",
        all(
            abs(one - other) < 1e-2 * abs(other)
            for way in _WAYS
            for one, other in zip(losses[way], losses["alone"], strict=True)
        ),
    )


@contextmanager
def _process_group(backend: str) -> Iterator[None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _steps(machine: Machine, way: str) -> dict[str, Any]:
    config = machine.config()
    machine.forget_peak()
    state = _distributed_state(machine, way)
    step = step_of(machine, state, config)
    losses = [round(step().item(), 6) for _ in range(_STEPS)]
    return {
        "losses": losses,
        "ms": round(machine.milliseconds(step, round_s=0.3), 3),
        "memory_gib": machine.peak_gib(),
    }


def _distributed_state(machine: Machine, way: str) -> TrainState:
    config = machine.config()
    start = "cpu" if way == "fsdp" else machine.device  # as training does
    state = initial_state(config.train, config.model, start)
    machine.compile(state)
    if way == "ddp":
        # As one of two ranks: one that is alone is not wrapped.
        distribute(state, config.train, Ranks(0, 2), "cuda:0" if machine.is_gpu else "cpu")
    elif way == "fsdp":
        kind = torch.device(machine.device).type
        shard(state, config.train, init_device_mesh(kind, (1,)))
    return state
