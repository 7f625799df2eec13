"""The queue and its one thread, without a model and without a web."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.serving.batch_queue import BatchQueue, BeforeStep
from pipeline.serving.queue_events import (
    Failed,
    Finished,
    Preview,
    QueueEvent,
    QueueFull,
    ShuttingDown,
    Step,
    TooMuchWork,
)
from pipeline.serving.requests import DrawingRequest, ImageRequest
from tld_model.config import SamplingSettings

STEPS = 3


def work_of(request: DrawingRequest) -> int:
    """That of the image, but twice as much if it is large."""
    return request.count * (2 if request.prompt == "large" else 1)


class Studio:
    """A queue whose drawings take as long as the test wants: every step needs a permit."""

    def __init__(self) -> None:
        self.batches_drawn: list[list[str]] = []
        self.active: list[list[bool]] = []
        self.begun: queue.Queue[list[str]] = queue.Queue()
        self.permits = threading.Semaphore(0)
        self.batch_sizes: list[int] = []
        self.previewed = 0
        self.queue = BatchQueue(
            self.draw, work_of, 8, 10, lambda images, _: self.batch_sizes.append(images)
        )

    def draw(
        self, requests: Sequence[DrawingRequest], before_step: BeforeStep
    ) -> list[NDArray[np.uint8]]:
        prompts = [request.prompt for request in requests]
        self.begun.put(prompts)
        for done in range(STEPS):
            assert self.permits.acquire(timeout=20)
            self.active.append(list(before_step(done, lambda: self.previews(requests))))
        self.batches_drawn.append(prompts)
        if "broken" in prompts:
            raise ZeroDivisionError("of the model")
        return [np.full((request.count, 2, 2, 3), request.seed, np.uint8) for request in requests]

    def previews(self, requests: Sequence[DrawingRequest]) -> list[NDArray[np.uint8]]:
        self.previewed += 1
        return [np.full((request.count, 1, 1, 3), request.seed, np.uint8) for request in requests]

    def go_on(self, steps: int = 1000) -> None:
        self.permits.release(steps)

    def ask(
        self,
        prompt: str,
        count: int = 1,
        steps: int = STEPS,
        seed: int = 0,
        *,
        previews: bool = False,
    ) -> Asked:
        request = ImageRequest(prompt, seed, count, SamplingSettings(steps, 2.0))
        return Asked(self.queue, request, previews=previews)

    def begin_one(self) -> Asked:
        """A first request that is being drawn, so that others wait."""
        first = self.ask("first")
        assert self.begun.get(timeout=20) == ["first"]
        return first


class Asked:
    def __init__(
        self, batches: BatchQueue, request: ImageRequest, *, previews: bool = False
    ) -> None:
        self.heard: queue.Queue[QueueEvent] = queue.Queue()
        self.ticket = batches.submit(request, self.heard.put, previews=previews)

    def last(self) -> Finished | Failed:
        while isinstance(event := self.heard.get(timeout=20), Step | Preview):
            pass
        return event


@pytest.fixture
def studio() -> Iterator[Studio]:
    studio = Studio()
    yield studio
    studio.queue.close()
    studio.go_on()
    assert studio.queue.join(20)


def test_those_who_agree_share_a_batch_and_the_oldest_goes_first(studio: Studio) -> None:
    first = studio.begin_one()
    asked = [
        studio.ask("a"),
        studio.ask("b", steps=9),
        studio.ask("c", seed=7, count=2),
        studio.ask("d", steps=9),
    ]
    assert [one.ticket.ahead for one in asked] == [1, 2, 3, 5]
    studio.go_on()
    for one in (first, *asked):
        assert isinstance(one.last(), Finished)
    assert studio.batches_drawn == [["first"], ["a", "c"], ["b", "d"]]


def test_a_batch_is_full_at_its_bound_and_pictures_come_back_to_whom_they_belong(
    studio: Studio,
) -> None:
    studio.begin_one()
    asked = [
        studio.ask(name, count, seed=seed)
        for seed, (name, count) in enumerate([("a", 5), ("b", 4), ("c", 1)])
    ]
    studio.go_on()
    for seed, (one, count) in enumerate(zip(asked, (5, 4, 1), strict=True)):
        event = one.last()
        assert isinstance(event, Finished)
        assert event.images.shape[0] == count
        assert (event.images == seed).all()
    assert studio.batches_drawn == [["first"], ["a", "c"], ["b"]]
    assert studio.batch_sizes[:2] == [1, 6]


def test_a_full_queue_refuses_and_has_room_again_when_someone_leaves(studio: Studio) -> None:
    studio.begin_one()
    leaving = studio.ask("a", 5)
    studio.ask("b", 5)
    assert studio.queue.waiting == 10
    with pytest.raises(QueueFull) as refused:
        studio.ask("c")
    assert refused.value.retry_after_s >= 1
    studio.queue.cancel(leaving.ticket)
    last = studio.ask("c", 5)
    studio.go_on()
    assert isinstance(last.last(), Finished)
    assert "a" not in [prompt for prompts in studio.batches_drawn for prompt in prompts]


def test_the_queue_counts_work_and_not_images(studio: Studio) -> None:
    studio.begin_one()
    large, small = studio.ask("large", 4), studio.ask("a")
    assert (large.ticket.ahead, small.ticket.ahead, studio.queue.waiting) == (1, 9, 9)
    with pytest.raises(QueueFull):
        studio.ask("large")
    with pytest.raises(TooMuchWork, match="the work of 12 images"):
        studio.ask("large", 6)
    assert studio.ask("b").ticket.ahead == 10


def test_who_asks_for_previews_gets_its_own_and_nobody_else_pays(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.serving.previews._EVERY_S", 0)
    monkeypatch.setattr("pipeline.serving.previews._MOST_SHARE", 1e9)
    studio.begin_one()
    asked = [studio.ask("a", 2, seed=5, previews=True), studio.ask("b", seed=6)]
    studio.go_on()
    heard: tuple[list[QueueEvent], list[QueueEvent]] = ([], [])
    for one, events in zip(asked, heard, strict=True):
        while not isinstance(event := one.heard.get(timeout=20), Finished):
            events.append(event)
    first = [event.images for event in heard[0] if isinstance(event, Preview)]
    assert [(images.shape[0], images.max()) for images in first] == [(2, 5)] * STEPS
    assert not [event for event in heard[1] if isinstance(event, Preview)]
    assert studio.previewed == STEPS, "the first batch had none who asked"


def test_who_leaves_a_batch_is_dropped_before_the_next_step(studio: Studio) -> None:
    studio.begin_one()
    leaving, staying = studio.ask("a"), studio.ask("b")
    studio.go_on(STEPS + 1)
    assert studio.begun.get(timeout=20) == ["a", "b"]
    assert staying.heard.get(timeout=20) == Step(0)
    studio.queue.cancel(leaving.ticket)
    studio.go_on()
    assert isinstance(staying.last(), Finished)
    assert studio.active[STEPS:] == [[True, True], [False, True], [False, True]]


def test_a_batch_that_nobody_waits_for_is_given_up_and_the_next_is_drawn(studio: Studio) -> None:
    first = studio.begin_one()
    studio.queue.cancel(first.ticket)
    following = studio.ask("a")
    studio.go_on()
    assert isinstance(following.last(), Finished)
    assert studio.batches_drawn == [["a"]]


def test_the_only_one_in_the_queue_may_leave_it(studio: Studio) -> None:
    for _ in range(20):
        studio.queue.cancel(studio.ask("a").ticket)
    studio.go_on()
    assert isinstance(studio.ask("b").last(), Finished)


def test_a_failure_is_told_to_the_batch_and_the_next_is_drawn(studio: Studio) -> None:
    studio.begin_one()
    broken, beside, following = studio.ask("broken"), studio.ask("a"), studio.ask("b", steps=9)
    studio.go_on()
    for one in (broken, beside):
        event = one.last()
        assert isinstance(event, Failed)
        assert isinstance(event.error, ZeroDivisionError)
    assert isinstance(following.last(), Finished)
    assert studio.queue.is_ready


def test_closing_finishes_what_is_begun_and_refuses_the_rest(studio: Studio) -> None:
    first = studio.begin_one()
    waiting = studio.ask("a")
    studio.queue.close()
    event = waiting.last()
    assert isinstance(event, Failed)
    assert isinstance(event.error, ShuttingDown)
    with pytest.raises(ShuttingDown):
        studio.ask("b")
    assert not studio.queue.is_ready
    studio.go_on()
    assert isinstance(first.last(), Finished)
    assert studio.queue.join(20)


def test_a_closed_queue_that_gives_up_tells_those_whose_batch_is_not_finished(
    studio: Studio,
) -> None:
    first = studio.begin_one()
    studio.queue.close()
    studio.queue.abort()
    event = first.last()
    assert isinstance(event, Failed)
    assert isinstance(event.error, ShuttingDown)
    studio.go_on()
    assert studio.queue.join(20)
    assert not studio.batches_drawn, "the next step was not taken"
    assert first.heard.empty()
