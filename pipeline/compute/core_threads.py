"""Threads that share the cores of a CPU: each computes some rows of a batch, alone.

Left to itself, torch uses all cores within each operation, at whose end every thread waits for the
slowest, spinning. A training step has a thousand such waits. Beside one busy process on two cores
they take most of the time, while threads that each compute half of the batch wait once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.compute.devices import torch_threads

_MOST_THREADS = 8  # because each holds the activations and gradients of its rows

Item = TypeVar("Item")
Result = TypeVar("Result")
Rows = tuple[Tensor | None, ...]


class CoreThreads:
    """Threads for a number of cores. How they divide a batch follows from that number alone, so
    equal inputs give equal bits however busy the machine is."""

    def __init__(self, cores: int = 1) -> None:
        self.cores = cores
        self.count = max(1, min(cores, _MOST_THREADS))
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="core")

    @property
    def cores_each(self) -> int:
        """The number of cores for the operations of one thread while all threads compute."""
        return max(1, self.cores // self.count)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results for all items, in their order, each computed in a thread. A single item is
        computed here, by all cores."""
        waiting = list(items)
        if self.count == 1 or len(waiting) == 1:
            return [function(item) for item in waiting]
        cores, mode = self.cores // min(self.count, len(waiting)), _Mode.here()

        def compute(item: Item) -> Result:
            torch.set_num_threads(cores)
            with mode.entered():
                return function(item)

        return list(self._pool.map(compute, waiting))

    def by_rows(
        self, function: Callable[..., Tensor], least_rows: int = 1
    ) -> Callable[..., Tensor]:
        """The same function of tensors, which must treat each row alone, computed some rows in each
        thread. Fewer than `least_rows` are computed here on one core, because they take less time
        than the threads need to meet."""

        def in_parts(*inputs: Tensor | None) -> Tensor:
            if _rows_of(inputs) < least_rows:
                with torch_threads(1):
                    return function(*inputs)
            return torch.cat(self.map(lambda rows: function(*rows), self.split(inputs)))

        return function if self.count == 1 else in_parts

    def split(self, inputs: Sequence[Tensor | None]) -> list[Rows]:
        """The inputs' rows for each thread; what is None stays None."""
        parts = min(self.count, _rows_of(inputs))
        columns = [
            (None,) * parts if tensor is None else tensor.tensor_split(parts) for tensor in inputs
        ]
        return list(zip(*columns, strict=True))


def _rows_of(inputs: Sequence[Tensor | None]) -> int:
    return next(len(tensor) for tensor in inputs if tensor is not None)


ONE_THREAD = CoreThreads()


def core_threads(device: str) -> CoreThreads:
    """Threads for the cores that torch uses on a CPU, or one thread for another device."""
    return CoreThreads(torch.get_num_threads()) if device == "cpu" else ONE_THREAD


@dataclass(frozen=True, slots=True)
class _Mode:
    """What torch keeps for each thread: whether it records gradients, and the autocast on a CPU."""

    grad: bool
    autocast: bool
    dtype: torch.dtype

    @classmethod
    def here(cls) -> _Mode:
        return cls(
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        with (
            torch.set_grad_enabled(self.grad),
            # All threads share its cache, in which one would find another's recorded casts.
            torch.autocast("cpu", self.dtype, enabled=self.autocast, cache_enabled=False),
        ):
            yield
