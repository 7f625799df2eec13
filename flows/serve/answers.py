"""Answers to generation requests: one JSON document, or a stream of events as lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from flows.serve.guard import CLIENT_LEFT, INTERNAL_ERROR, log_failure
from flows.serve.images import answer, generated_images, preview_images
from flows.serve.metrics import ServiceMetrics
from pipeline.generate.image_metadata import Origin
from pipeline.serving.batch_queue import BatchQueue
from pipeline.serving.queue_events import (
    Failed,
    Finished,
    Preview,
    QueueEvent,
    ShuttingDown,
    Step,
)
from pipeline.serving.requests import DrawingRequest


@dataclass(frozen=True, slots=True)
class Responder:
    """Answers the requests of clients with the images of a queue."""

    batches: BatchQueue
    metrics: ServiceMetrics
    origin: Origin

    async def respond(self, requested: DrawingRequest, request: Request) -> Response:
        """Answer a request once all its images are finished."""
        finished = await self.finish(requested, request)
        if finished is None:
            return Response(status_code=CLIENT_LEFT)
        body = await asyncio.to_thread(answer, requested, finished, self.origin)
        return Response(body, media_type="application/json")

    async def finish(self, requested: DrawingRequest, request: Request) -> Finished | None:
        """The images of a request, or None if its client disconnects. Raises what the model
        raises, and QueueFull or ShuttingDown."""
        queued = _QueuedRequest(self.batches, requested)
        async with contextlib.aclosing(queued.follow(request.receive)) as events:
            last = [event async for event in events][-1]
        if isinstance(last, Failed):
            raise last.error
        if isinstance(last, Finished):
            return last
        self.metrics.left()
        return None

    def stream(self, requested: DrawingRequest, *, previews: bool) -> Response:
        """Answer a request with its events while they happen."""
        queued = _QueuedRequest(self.batches, requested, previews=previews)
        return _EventStream(queued, self.metrics, self.origin)


class _QueuedRequest:
    """A client's request in the queue; events of the device's thread arrive on the event loop.

    Of the previews only the newest waits for the client, and none once the request has ended: a
    client that reads slowly is not behind the device, and one that never reads keeps few images.
    """

    def __init__(
        self, batches: BatchQueue, request: DrawingRequest, *, previews: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()

        def listen(event: QueueEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens
                loop.call_soon_threadsafe(self._take, event)

        self._waiting: deque[QueueEvent | None] = deque()
        self._arrived = asyncio.Event()  # set while an event waits
        self.request, self._batches = request, batches
        self.ticket = batches.submit(request, listen, previews=previews)

    async def follow(self, receive: Receive) -> AsyncGenerator[QueueEvent | None, None]:
        """Yield the events of the request up to the last, or None if the client disconnects.

        The request is cancelled when the generator is closed, whatever the reason.
        """
        disconnection = asyncio.create_task(self._watch(receive))
        try:
            while True:
                await self._arrived.wait()
                event = self._waiting.popleft()
                if not self._waiting:
                    self._arrived.clear()
                yield event
                if not isinstance(event, Step | Preview):
                    return
        finally:
            disconnection.cancel()
            self._batches.cancel(self.ticket)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._take(None)

    def _take(self, event: QueueEvent | None) -> None:
        if not isinstance(event, Step):  # an event that replaces an earlier preview
            self._waiting = deque(one for one in self._waiting if not isinstance(one, Preview))
        self._waiting.append(event)
        self._arrived.set()


class _EventStream(Response):
    """The events of a request, as lines of JSON while they happen."""

    media_type = "application/x-ndjson"

    def __init__(self, queued: _QueuedRequest, metrics: ServiceMetrics, origin: Origin) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.queued, self.metrics, self.origin = queued, metrics, origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        request = self.queued.request

        async def send_line(event: str, **more: object) -> None:
            line = json.dumps({"event": event, **more}) + "\n"
            await send({"type": "http.response.body", "body": line.encode(), "more_body": True})

        async with contextlib.aclosing(self.queued.follow(receive)) as events:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send_line("waiting", ahead=self.queued.ticket.ahead)
            async for event in events:
                match event:
                    case Step(done):
                        await send_line("step", done=done, steps=request.steps)
                    case Preview(images):
                        for preview in await asyncio.to_thread(preview_images, request, images):
                            await send_line("preview", **preview.model_dump())
                    case Finished():
                        finished = request, event, self.origin
                        for image in await asyncio.to_thread(generated_images, *finished):
                            await send_line("picture", **image.model_dump())
                        await send_line("finished")
                    case Failed(error):
                        await send_line("failed", **_failure_details(error))
                    case None:
                        self.metrics.left()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _failure_details(error: Exception) -> dict[str, str]:
    if isinstance(error, ShuttingDown):
        return {"detail": str(error)}
    try:
        raise error
    except Exception:
        return {"detail": INTERNAL_ERROR, "id": log_failure("generation")}
