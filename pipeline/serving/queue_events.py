"""Events that the batch queue sends to the client of a request, and the errors of the queue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Step:
    """This many steps are done."""

    done: int


@dataclass(frozen=True, slots=True)
class Finished:
    """All images of the request, uint8 [count, h, w, 3]."""

    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed and has no images."""

    error: Exception


QueueEvent = Step | Finished | Failed


class QueueFull(RuntimeError):
    """The queue has no room now; there may be room in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class ShuttingDown(RuntimeError):
    """The service accepts no more requests."""
