"""The section on `tld bench`: its own figures of training, sampling and loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from pipeline.bench import data_speed, measure
from pipeline.bench.bench import bench as run_bench
from pipeline.bench.parts import Part
from tools.gpu_check.machine import Figures, Machine

_PAIRS = 1000


def bench(device: str) -> Figures:
    """As `tld bench CONFIG --only train --only denoise --only load --json`."""
    machine = Machine(device)
    devices = [f"train.device={device}", f"evaluate.device={device}"]
    config = machine.config(*devices, f"evaluate.batch_size={machine.size(64, 1)}")
    parts: tuple[Part, ...] = ("train", "denoise", "load")
    with short_rounds(machine):
        yield from run_bench(config, parts, _PAIRS, lambda _: None).items()


@contextmanager
def short_rounds(machine: Machine) -> Iterator[None]:
    """Let benchmarks measure for a second a round, and on a CPU hardly at all."""
    if machine.is_gpu:
        with patch.object(measure, "_LEAST_S", 1.0):
            yield
        return
    with (
        patch.object(measure, "_LEAST_S", 0.01),
        patch.object(measure, "_PRODUCTS", ((64, 64, 64),)),
        patch.object(data_speed, "_ENCODE_S", 0.01),
    ):
        yield
