"""Measurement of speed and memory, and of the peak matrix-product rate of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.compute.devices import wait_for

_ROUNDS = 3
_LEAST_S = 2.0  # least duration of one round
_MOST_S = 5.0  # longest duration of one call, if its size can be chosen
_PRODUCTS = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (2048, 768, 3072),
    (8192, 8192, 8192),
)
_PRODUCT_S = 1.0  # products that would take longer are skipped

Works = dict[str, Callable[[], float]]  # each returns the amount of work done


@dataclass(frozen=True, slots=True)
class Speed:
    """Units of work (usually images) per second in each of several rounds, or how many times as
    many as another work."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def slowest(self) -> float:
        return min(self.rounds)

    @property
    def fastest(self) -> float:
        return max(self.rounds)

    def relative_to(self, other: Speed) -> Speed:
        """The speed as a multiple of another one that was measured in turns with it."""
        return Speed(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))

    def summary(self) -> dict[str, float]:
        """Median, slowest and fastest round, for people and programs."""
        return {name: round(getattr(self, name), 2) for name in ("median", "slowest", "fastest")}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The speeds measured for a part, and further figures."""

    speeds: dict[str, Speed]
    details: dict[str, Any] = field(default_factory=dict)


def measure(work: Callable[[], float]) -> Speed:
    """Call `work`, which returns the amount of work done, in rounds, after one warm-up call."""
    return measure_in_turns({"work": work})["work"]


def measure_in_turns(works: Works) -> dict[str, Speed]:
    """Like `measure`, for several works in turns, so that other load on the machine slows all of
    them equally."""
    for work in works.values():
        work()
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(_ROUNDS):
        for name, work in works.items():
            done, started = 0.0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < _LEAST_S:
                done += work()
            speeds[name].append(done / elapsed)
    return {name: Speed(tuple(rates)) for name, rates in speeds.items()}


def largest_batch(
    work_on: Callable[[int], Callable[[], float]], requested: int, least: int = 1
) -> int:
    """The requested batch size, or the last of `least`, twice `least`, … that this machine
    processes within a few seconds."""
    size = min(least, requested)
    while size < requested:
        work = work_on(min(2 * size, requested))
        work()
        started = time.perf_counter()
        work()
        if time.perf_counter() - started > _MOST_S:
            break
        size = min(2 * size, requested)
    return size


def matrix_product(device: str, dtype: torch.dtype) -> Callable[[], float]:
    """The matrix product with the highest rate on this device, among several shapes. The work
    returns its number of floating-point operations, two per multiply-add."""
    products: list[tuple[float, Callable[[], float]]] = []
    for m, k, n in _PRODUCTS:
        work = _product(device, dtype, m, k, n)
        operations, seconds = work(), min(_seconds(work) for _ in range(3))
        products.append((operations / seconds, work))
        if seconds * 8 > _PRODUCT_S:
            break
    return max(products, key=lambda product: product[0])[1]


def _product(device: str, dtype: torch.dtype, m: int, k: int, n: int) -> Callable[[], float]:
    left, right = torch.randn(m, k).to(device, dtype), torch.randn(k, n).to(device, dtype)

    def work() -> float:
        for _ in range(4):
            left @ right
        wait_for(device)
        return 4 * 2.0 * m * k * n

    return work


def _seconds(work: Callable[[], float]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of this process, in bytes."""

    own: int  # anonymous pages
    mapped: int  # pages of mapped files, which the system may evict at any time
    peak: int  # highest sum of both since `forget_peak`


def memory() -> Memory:
    """The memory of this process, as Linux counts it (proc(5), /proc/pid/status)."""
    lines = (
        line.split(":")
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    status = {name: value for name, value in lines if name in ("RssAnon", "RssFile", "VmHWM")}
    return Memory(
        *(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "VmHWM"))
    )


def forget_peak() -> None:
    """Reset the peak to the current memory use (proc(5), /proc/pid/clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def mib(count: int) -> int:
    """Bytes in MiB, rounded."""
    return round(count / 2**20)
