"""How fast something is, how much memory it takes, and how fast the device multiplies matrices at
its best.

Knows nothing of stages or models.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_ROUNDS = 3
_LEAST_S = 2.0  # of one round
_MOST_S = 5.0  # of one call, where its size can be chosen
_PRODUCTS = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (2048, 768, 3072),
    (8192, 8192, 8192),
)
_PRODUCT_S = 1.0  # a product that would take longer is left out


@dataclass(frozen=True, slots=True)
class Speed:
    """Images (or whatever is counted) a second over some rounds."""

    median: float
    slowest: float
    fastest: float


def measure(work: Callable[[], float]) -> Speed:
    """Call `work`, which returns how much it did, in rounds; one call beforehand warms up."""
    return measure_in_turns({"work": work})["work"]


def measure_in_turns(works: dict[str, Callable[[], float]]) -> dict[str, Speed]:
    """As `measure`, several in turns, so that what else the machine does slows all of them
    alike."""
    for work in works.values():
        work()
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(_ROUNDS):
        for name, work in works.items():
            done, started = 0.0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < _LEAST_S:
                done += work()
            speeds[name].append(done / elapsed)
    return {
        name: Speed(statistics.median(rates), min(rates), max(rates))
        for name, rates in speeds.items()
    }


def largest_batch(
    work_on: Callable[[int], Callable[[], float]], requested: int, least: int = 1
) -> int:
    """The batch size wanted, or the last of `least`, twice `least`, … that this machine does in a
    few seconds."""
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
    """The matrix product that this device does fastest, of several shapes: work that returns its
    floating-point operations, two for each multiply-add."""
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
        synchronize(device)
        return 4 * 2.0 * m * k * n

    return work


def _seconds(work: Callable[[], float]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    """Wait until a GPU has done all it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process holds in the machine's memory, bytes."""

    own: int  # its own pages
    mapped: int  # pages of mapped files, which the system may drop at any time
    peak: int  # the most of both together since `forget_peak`


def memory() -> Memory:
    """Of this process, as Linux counts it (proc(5), /proc/pid/status)."""
    lines = (
        line.split(":")
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    status = {name: value for name, value in lines if name in ("RssAnon", "RssFile", "VmHWM")}
    return Memory(
        *(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "VmHWM"))
    )


def forget_peak() -> None:
    """Let the peak begin anew at what is held now (proc(5), /proc/pid/clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
