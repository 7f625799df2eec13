"""Dynamic batching: a bounded queue of requests, and one thread that owns the device.

Requests that can share a batch do, oldest first, up to a maximum number of images. The queue is
bounded by the work of its requests. A cancelled request leaves the queue at once, and a running
batch before its next step.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.previews import MakePreviews, PreviewPace
from pipeline.serving.queue_events import (
    Failed,
    Finished,
    Preview,
    QueueEvent,
    QueueFull,
    ShuttingDown,
    Step,
    Ticket,
    TooMuchWork,
)
from pipeline.serving.requests import DrawingRequest, share_a_batch

# How long the first request of a batch waits for others: clients that are answered together send
# their next requests together.
_GATHER_S = 0.01
_DECAY = 0.8  # of the running mean of seconds per unit of work
_LONGEST_RETRY_S = 60
_UNHEALTHY_AFTER = 3  # consecutive failed batches after which the device counts as broken


class BeforeStep(Protocol):
    """Called before each step with the number of steps done, and with what makes previews if there
    is anything to show. It returns for each request whether a client still waits for it."""

    def __call__(self, done: int, previews: MakePreviews | None = None, /) -> Sequence[bool]: ...


# Generates the images of each request of a batch, uint8 [count, h, w, 3].
DrawFn = Callable[[Sequence[DrawingRequest], BeforeStep], Sequence[NDArray[np.uint8]]]
# What a request costs, in images of the model's own size and settings.
WorkOf = Callable[[DrawingRequest], int]


class _Abandoned(Exception):
    """No client waits for an image of the batch any more."""


class BatchQueue:
    """The queue and its device thread, from construction to `close`."""

    def __init__(
        self,
        draw: DrawFn,
        work_of: WorkOf,
        most_at_once: int,
        most_waiting: int,
        after_batch: Callable[[int, float], None],
    ) -> None:
        """Start with at most `most_at_once` images in a batch and the work of `most_waiting` in the
        queue.

        `after_batch` is called on the device's thread with the images and seconds of each batch.
        """
        self._draw, self._work_of, self._after_batch = draw, work_of, after_batch
        self._most_at_once, self._most_waiting = most_at_once, most_waiting
        self._changed = threading.Condition()  # guards all below
        self._queue: list[Ticket] = []
        self._running: list[Ticket] = []
        self._open = True
        self._seconds_per_work = 0.0
        self._failed_in_a_row = 0
        self._pace = PreviewPace()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted."""
        return self._open and self._thread.is_alive()

    @property
    def is_healthy(self) -> bool:
        """Whether requests are accepted and likely to succeed: the last batches did not all fail.

        A batch that succeeds makes the queue healthy again.
        """
        return self.is_ready and self._failed_in_a_row < _UNHEALTHY_AFTER

    @property
    def waiting(self) -> int:
        """The work in the queue."""
        with self._changed:
            return _work(self._queue)

    def submit(
        self,
        request: DrawingRequest,
        listen: Callable[[QueueEvent], None],
        *,
        previews: bool = False,
    ) -> Ticket:
        """Put a request into the queue.

        Raises:
            TooMuchWork: not even an empty queue has room for the request.
            QueueFull: the queue has no room for the request now.
            ShuttingDown: the queue is closed.
        """
        if request.count > self._most_at_once:
            raise ValueError(
                f"{request.count} images do not fit into a batch of {self._most_at_once}"
            )
        if (work := self._work_of(request)) > self._most_waiting:
            raise TooMuchWork(work, self._most_waiting)
        with self._changed:
            if not self.is_ready:
                raise ShuttingDown("the service is shutting down")
            waiting, ahead = _work(self._queue), _work(self._queue + self._running)
            if waiting + work > self._most_waiting:
                raise QueueFull(
                    min(_LONGEST_RETRY_S, max(1, math.ceil(ahead * self._seconds_per_work)))
                )
            ticket = Ticket(request, listen, work, ahead, previews=previews)
            self._queue.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Remove a request from the queue, or from its batch before the next step."""
        with self._changed:
            ticket.active = False
            if ticket in self._queue:
                self._queue.remove(ticket)

    def close(self) -> None:
        """Accept no more requests and fail those in the queue; the running batch is finished."""
        with self._changed:
            self._open = False
            refused, self._queue = self._queue, []
            self._changed.notify()
        _refuse(refused)

    def abort(self) -> None:
        """After `close`, fail the requests of the running batch; it stops before its next step."""
        with self._changed:
            refused = [ticket for ticket in self._running if ticket.active]
            for ticket in refused:
                ticket.active = False
        _refuse(refused)

    def join(self, timeout_s: float) -> bool:
        """After `close`, wait for the last batch; return whether it ended in time."""
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
                latest = seconds / _work(batch)
                before = self._seconds_per_work or latest
                self._seconds_per_work = _DECAY * before + (1 - _DECAY) * latest
            for ticket, last in zip(batch, results, strict=True):
                if ticket.active:
                    ticket.listen(last)
            self._after_batch(_image_count(batch), seconds)

    def _next_batch(self) -> list[Ticket]:
        """Wait for the next batch; it is empty once the queue is closed."""
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
        """The oldest request and all that can share its batch."""
        batch: list[Ticket] = []
        for ticket in self._queue:
            fits = _image_count(batch) + ticket.request.count <= self._most_at_once
            if fits and share_a_batch(ticket.request, self._queue[0].request):
                batch.append(ticket)
        return batch

    def _run_batch(self, batch: list[Ticket]) -> Sequence[Finished | Failed]:
        """Run a batch; return the last event of each request."""

        def before_step(done: int, previews: MakePreviews | None = None, /) -> list[bool]:
            active = [ticket.active for ticket in batch]
            if not any(active):
                raise _Abandoned
            for ticket in batch:
                ticket.listen(Step(done))
            if previews and any(ticket.active and ticket.previews for ticket in batch):
                for ticket, images in zip(batch, self._pace.make(previews) or (), strict=False):
                    if ticket.previews:
                        ticket.listen(Preview(images))
            return active

        self._pace.begin_batch()
        try:
            return [
                Finished(images)
                for images in self._draw([ticket.request for ticket in batch], before_step)
            ]
        except Exception as error:  # of any kind, because the next batch must still run
            return [Failed(error)] * len(batch)


def _has_failed(results: Sequence[Finished | Failed]) -> bool:
    """Whether a batch failed for another reason than that no client waited for it."""
    return any(
        isinstance(last, Failed) and not isinstance(last.error, _Abandoned) for last in results
    )


def _refuse(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.listen(Failed(ShuttingDown("the service is shutting down")))


def _image_count(tickets: Sequence[Ticket]) -> int:
    return sum(ticket.request.count for ticket in tickets)


def _work(tickets: Sequence[Ticket]) -> int:
    return sum(ticket.work for ticket in tickets)
