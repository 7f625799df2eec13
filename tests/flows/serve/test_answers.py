"""Events of a request whose client reads slowly or not at all, with a real queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.types import Message

from flows.serve.answers import _QueuedRequest
from pipeline.serving.batch_queue import BatchQueue, BeforeStep
from pipeline.serving.queue_events import Finished, Preview, QueueEvent, Step
from pipeline.serving.requests import DrawingRequest, ImageRequest
from tld_model.config import SamplingSettings

STEPS = 10
WAIT_S = 30


class Studio:
    """A queue that draws all steps at once, and then waits until the image may be finished."""

    def __init__(self) -> None:
        self.drawn, self.may_finish = threading.Event(), threading.Event()
        self.queue = BatchQueue(self.draw, lambda request: request.count, 1, 1, lambda *_: None)

    def draw(
        self, requests: Sequence[DrawingRequest], before_step: BeforeStep
    ) -> list[NDArray[np.uint8]]:
        for done in range(STEPS):
            before_step(done, partial(self.previews, done))
        self.drawn.set()
        assert self.may_finish.wait(WAIT_S)
        return [self.grey(STEPS) for _ in requests]

    def previews(self, done: int) -> list[NDArray[np.uint8]]:
        return [self.grey(done)]

    @staticmethod
    def grey(level: int) -> NDArray[np.uint8]:
        return np.full((1, 2, 2, 3), level, np.uint8)


@pytest.fixture
def studio() -> Iterator[Studio]:
    studio = Studio()
    yield studio
    studio.may_finish.set()
    studio.queue.close()
    assert studio.queue.join(WAIT_S)


async def silent() -> Message:
    """A client that says nothing."""
    await asyncio.Event().wait()
    raise AssertionError


def begin(studio: Studio) -> _QueuedRequest:
    request = ImageRequest("a star", 0, 1, SamplingSettings(STEPS, 2.0))
    return _QueuedRequest(studio.queue, request, previews=True)


@pytest.mark.usefixtures("fast_previews")
def test_the_newest_preview_alone_waits_for_a_client(studio: Studio) -> None:
    async def read_late() -> list[QueueEvent | None]:
        queued = begin(studio)
        assert await asyncio.to_thread(studio.drawn.wait, WAIT_S)
        events = queued.follow(silent)
        arrived = [await anext(events) for _ in range(STEPS + 1)]
        studio.may_finish.set()
        return [*arrived, *[event async for event in events]]

    *steps, preview, last = asyncio.run(read_late())
    assert steps == [Step(done) for done in range(STEPS)]
    assert isinstance(preview, Preview)
    assert preview.images.max() == STEPS - 1
    assert isinstance(last, Finished)


@pytest.mark.usefixtures("fast_previews")
def test_no_preview_comes_before_finished_images(studio: Studio) -> None:
    async def read_at_the_end() -> list[QueueEvent | None]:
        queued = begin(studio)
        assert await asyncio.to_thread(studio.drawn.wait, WAIT_S)
        studio.may_finish.set()
        studio.queue.close()
        assert await asyncio.to_thread(studio.queue.join, WAIT_S)
        return [event async for event in queued.follow(silent)]

    *steps, last = asyncio.run(read_at_the_end())
    assert steps == [Step(done) for done in range(STEPS)]
    assert isinstance(last, Finished)
