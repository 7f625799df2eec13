"""The device that is measured: its sizes, its clocks, and what makes it wait."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.compute.devices import use_device, wait_for
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.train.loop import TrainState, initial_state

ROOT = Path(__file__).parents[2]
_ROUNDS = 5
_MOST_CALLS = 200  # of one round
_TINY = (
    "model.width=64",
    "model.layers=1",
    "model.latent_size=8",
    "model.noise_embed_dim=16",
    "train.batch_size=4",
)

# (name, value) pairs, each written down as soon as it is known
Figures = Iterator[tuple[str, Any]]


class Machine:
    """A device with everything on it in full size, or a CPU with everything tiny."""

    def __init__(self, device: str) -> None:
        self.device = use_device(device)
        self.is_gpu = self.device.startswith("cuda")
        torch.manual_seed(0)

    def size(self, full: int, tiny: int) -> int:
        """A number of things: many on a GPU, few on a CPU."""
        return full if self.is_gpu else tiny

    def config(self, *overrides: str) -> RunConfig:
        """The settings of conf/original-100m.yaml, of a tiny model on a CPU."""
        tiny = () if self.is_gpu else _TINY
        return load_config(ROOT / "conf/original-100m.yaml", [*tiny, *overrides])

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        wait_for(self.device)

    def milliseconds(self, work: Callable[[], object], round_s: float = 0.1) -> float:
        """The duration of one call: the median of several rounds of calls that follow each other
        without a wait, after two calls to warm up."""
        for _ in range(2):
            work()
        once = self._elapsed_ms(work, 1)
        calls = max(1, min(_MOST_CALLS, round(round_s * 1e3 / once)))
        if not self.is_gpu:
            return once
        return statistics.median(self._elapsed_ms(work, calls) / calls for _ in range(_ROUNDS))

    def _elapsed_ms(self, work: Callable[[], object], calls: int) -> float:
        self.wait()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        self.wait()
        return (time.perf_counter() - started) * 1e3

    def host_milliseconds(self, work: Callable[[], object]) -> float:
        """The time that the host needs to queue one call, with an idle device."""
        durations = []
        for _ in range(3):
            self.wait()
            started = time.perf_counter()
            work()
            durations.append((time.perf_counter() - started) * 1e3)
        self.wait()
        return statistics.median(durations)

    def synchronizations(self, work: Callable[[], object]) -> list[str] | None:
        """The lines at which one call waits for the GPU, as torch notices them; None on a CPU."""
        if not self.is_gpu:
            work()
            return None
        self.wait()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return [
            f"{Path(warning.filename).name}:{warning.lineno}"
            for warning in caught
            if "called a synchronizing CUDA operation" in str(warning.message)
        ]

    def busy_share(self, work: Callable[[], object], calls: int) -> float | None:
        """The share of the time of some calls in which the GPU computes or copies, from the first
        kernel to the last; None on a CPU."""
        if not self.is_gpu:
            return None
        self.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(calls):
                work()
            self.wait()
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profiler.events() or ()
            if str(event.device_type).endswith("CUDA")
            and not getattr(event, "is_user_annotation", False)
        )
        return round(covered_share(spans), 4) if spans else None

    def forget_peak(self) -> None:
        """Begin to measure the device's peak memory anew."""
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """The peak of the device's memory; None on a CPU."""
        return round(torch.cuda.max_memory_allocated() / 2**30, 2) if self.is_gpu else None

    def state(self, config: RunConfig) -> TrainState:
        """A training at step 0."""
        return initial_state(config.train, config.model, self.device)

    def compile(self, state: TrainState) -> None:
        """Compile the blocks as training does. On a CPU, where that takes minutes, they are only
        traced."""
        if self.is_gpu:
            state.denoiser.compile_blocks()
        else:
            for block in state.denoiser.blocks:
                block.compile(backend="aot_eager")


def matrix_tflop_per_s(machine: Machine, dtype: torch.dtype, edge: int) -> float:
    """The rate of square matrix products of random numbers."""
    left, right = (torch.randn(edge, edge, device=machine.device).to(dtype) for _ in range(2))
    return 2 * edge**3 / machine.milliseconds(lambda: left @ right) / 1e9


def bf16_peak(machine: Machine) -> float:
    """The measured peak of bf16 matrix products, in TFLOP/s."""
    return matrix_tflop_per_s(machine, torch.bfloat16, machine.size(8192, 128))


def covered_share(spans: list[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end that these sorted spans cover."""
    covered, end = 0.0, spans[0][0]
    for start, stop in spans:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered / (end - spans[0][0])
