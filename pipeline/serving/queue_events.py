"""Requests in the batch queue, the events that their clients are sent, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.requests import DrawingRequest


@dataclass(frozen=True, slots=True)
class Step:
    """This many steps are done."""

    done: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What the images of the request look like by now, uint8 [count, h, w, 3]."""

    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Finished:
    """All images of the request, uint8 [count, h, w, 3]."""

    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed and has no images."""

    error: Exception


QueueEvent = Step | Preview | Finished | Failed


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the queue or in a batch.

    `listen` is called on the device's thread, so it must neither block nor raise. Its last event is
    Finished or Failed.
    """

    request: DrawingRequest
    listen: Callable[[QueueEvent], None]
    work: int
    ahead: int
    """The work that came before its own when it was submitted."""
    active: bool = True
    """Whether a client still waits for it."""
    previews: bool = False
    """Whether it is sent previews."""


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
