"""Requests for pictures, drawn together: a bounded queue, and one thread that owns the device.

Requests that can share a batch do, oldest first, up to a number of pictures. Who stops waiting
drops out: of the queue at once, of a batch before its next step. Knows the model as a callable, and
no web.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.requests import DrawingRequest, share_a_batch

_GATHER_S = 0.01  # how long the first request of a batch waits for others: clients answered together come back together
_MEMORY = 0.8  # of the running mean of seconds a picture
_LONGEST_RETRY_S = 60
_UNHEALTHY_AFTER = 3  # failed batches in a row, after which the device is thought broken


@dataclass(frozen=True, slots=True)
class Step:
    """So many steps are done."""

    done: int


@dataclass(frozen=True, slots=True)
class Finished:
    """All pictures of the request, uint8 [count, h, w, 3]."""

    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no pictures."""

    error: Exception


QueueEvent = Step | Finished | Failed
# Called before each step with the number of steps done: for each request, whether somebody still
# waits for it.
BeforeStep = Callable[[int], Sequence[bool]]
# The requests of one batch -> the pictures of each, uint8 [count, h, w, 3].
DrawFn = Callable[[Sequence[DrawingRequest], BeforeStep], Sequence[NDArray[np.uint8]]]


class QueueFull(RuntimeError):
    """No room for a request now; there may be in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class ShuttingDown(RuntimeError):
    """No request is begun any more."""


class _Abandoned(Exception):
    """Nobody waits for any picture of the batch."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the queue or in a batch. `listen` is called on the device's thread: it must
    neither block nor raise. The last thing it hears is Finished or Failed."""

    request: DrawingRequest
    listen: Callable[[QueueEvent], None]
    ahead: int
    """Pictures that were to be drawn before these when the request came."""
    active: bool = True


class BatchQueue:
    """The queue and the thread that draws, from construction to `close`."""

    def __init__(
        self,
        draw: DrawFn,
        most_at_once: int,
        most_waiting: int,
        after_batch: Callable[[int, float], None],
    ) -> None:
        """Batches of at most `most_at_once` pictures, at most `most_waiting` pictures in the queue.
        `after_batch` is told the pictures and the seconds of each batch, on the device's thread."""
        self._draw, self._after_batch = draw, after_batch
        self._most_at_once, self._most_waiting = most_at_once, most_waiting
        self._changed = threading.Condition()  # guards all below
        self._queue: list[Ticket] = []
        self._running: list[Ticket] = []
        self._open = True
        self._seconds_per_image = 0.0
        self._failed_in_a_row = 0
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken and drawn."""
        return self._open and self._thread.is_alive()

    @property
    def is_healthy(self) -> bool:
        """Whether a request would likely be drawn: the last batches did not all fail. One that
        succeeds mends it."""
        return self.is_ready and self._failed_in_a_row < _UNHEALTHY_AFTER

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        with self._changed:
            return _image_count(self._queue)

    def submit(self, request: DrawingRequest, listen: Callable[[QueueEvent], None]) -> Ticket:
        """Put a request into the queue. Raises QueueFull or ShuttingDown."""
        if request.count > self._most_at_once:
            raise ValueError(
                f"{request.count} pictures are more than a batch, {self._most_at_once}"
            )
        with self._changed:
            if not self.is_ready:
                raise ShuttingDown("the service is shutting down")
            waiting, ahead = _image_count(self._queue), _image_count(self._queue + self._running)
            if waiting + request.count > self._most_waiting:
                raise QueueFull(
                    min(_LONGEST_RETRY_S, max(1, math.ceil(ahead * self._seconds_per_image)))
                )
            ticket = Ticket(request, listen, ahead)
            self._queue.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Wait no longer: the request is taken out of the queue, or out of its batch before the
        next step."""
        with self._changed:
            ticket.active = False
            if ticket in self._queue:
                self._queue.remove(ticket)

    def close(self) -> None:
        """Take no more requests, and tell those not begun; the batch that is being drawn is
        finished."""
        with self._changed:
            self._open = False
            refused, self._queue = self._queue, []
            self._changed.notify()
        _refuse(refused)

    def abort(self) -> None:
        """After `close`: tell those whose batch is still being drawn; its next step is not
        taken."""
        with self._changed:
            refused = [ticket for ticket in self._running if ticket.active]
            for ticket in refused:
                ticket.active = False
        _refuse(refused)

    def join(self, timeout_s: float) -> bool:
        """Wait, after `close`, for the last batch; whether it ended in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            results = self._run_batch(batch)
            seconds = time.monotonic() - started
            with self._changed:
                self._running = []
                self._failed_in_a_row = self._failed_in_a_row + 1 if _has_failed(results) else 0
                latest = seconds / _image_count(batch)
                before = self._seconds_per_image or latest
                self._seconds_per_image = _MEMORY * before + (1 - _MEMORY) * latest
            for ticket, last in zip(batch, results, strict=True):
                if ticket.active:
                    ticket.listen(last)
            self._after_batch(_image_count(batch), seconds)

    def _next_batch(self) -> list[Ticket]:
        """The oldest request and all that can share its batch; none once the service is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or not self._open)
                self._changed.wait_for(self._is_full_or_closed, _GATHER_S)
                if batch := self._oldest_batch():
                    self._queue = [ticket for ticket in self._queue if ticket not in batch]
                    self._running = batch
                    return batch
                if not self._open:  # and so the queue stays empty
                    return []

    def _is_full_or_closed(self) -> bool:
        return _image_count(self._queue) >= self._most_at_once or not self._open

    def _oldest_batch(self) -> list[Ticket]:
        batch: list[Ticket] = []
        for ticket in self._queue:
            fits = _image_count(batch) + ticket.request.count <= self._most_at_once
            if fits and share_a_batch(ticket.request, self._queue[0].request):
                batch.append(ticket)
        return batch

    def _run_batch(self, batch: list[Ticket]) -> Sequence[Finished | Failed]:
        """What each request of the batch is told last."""

        def before_step(done: int) -> list[bool]:
            active = [ticket.active for ticket in batch]
            if not any(active):
                raise _Abandoned
            for ticket in batch:
                ticket.listen(Step(done))
            return active

        try:
            return [
                Finished(images)
                for images in self._draw([ticket.request for ticket in batch], before_step)
            ]
        except Exception as error:  # of whatever kind: the next batch is drawn all the same
            return [Failed(error)] * len(batch)


def _has_failed(results: Sequence[Finished | Failed]) -> bool:
    """Whether a batch failed, and not because nobody waited for it any more."""
    return any(
        isinstance(last, Failed) and not isinstance(last.error, _Abandoned) for last in results
    )


def _refuse(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.listen(Failed(ShuttingDown("the service is shutting down")))


def _image_count(tickets: Sequence[Ticket]) -> int:
    return sum(ticket.request.count for ticket in tickets)
