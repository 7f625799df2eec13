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


class TooMuchWork(ValueError):
    """A request is more work than the whole queue may hold; the message names both."""

    def __init__(self, work: int, most: int) -> None:
        super().__init__(
            f"this request is the work of {work} images of the model's own size and steps, and the "
            f"maximum is {most}; ask for fewer steps or fewer images"
        )


class ShuttingDown(RuntimeError):
    """The service accepts no more requests."""
