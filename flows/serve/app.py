"""The service as a web application: what can be asked, what is answered. Knows the queue, no model
and no server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from starlette.types import Receive, Scope, Send

from flows.serve.card import Card
from flows.serve.guard import CLIENT_LEFT, Access, Guard, log_failure, problem
from flows.serve.metrics import ServiceMetrics
from flows.serve.schemas import (
    MAX_COUNT,
    PROBLEMS,
    STREAM,
    GeneratedImages,
    ImagesRequested,
    InterpolationWanted,
    OutpaintingWanted,
    answer,
    generated_images,
    image_request,
    interpolation_request,
    outpainting_request,
)
from pipeline.serving.batch_queue import (
    BatchQueue,
    DrawFn,
    Failed,
    Finished,
    QueueEvent,
    QueueFull,
    ShuttingDown,
    Step,
)
from pipeline.serving.requests import DrawingRequest
from tld_model.config import SamplingSettings

_BATCHES_WAITING = 4  # as long a queue as that many full batches
# For the OpenAPI page alone: the guard has asked before.
_TOKEN = [
    Security(HTTPBearer(auto_error=False, description="Needed where the service was given tokens."))
]
_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Service:
    """The application, and the queue behind it, which is closed before the server stops."""

    app: FastAPI
    batches: BatchQueue


def image_service(
    draw: DrawFn, card: Card, own: SamplingSettings, access: Access, most_at_once: int
) -> Service:
    """A service that draws with `draw`, in batches of at most `most_at_once` pictures, sampling as
    the run's `own` settings say where a request does not."""
    metrics = ServiceMetrics()
    most_at_once = max(most_at_once, MAX_COUNT)
    batches = BatchQueue(draw, most_at_once, _BATCHES_WAITING * most_at_once, metrics.drawn)
    metrics.watch(lambda: batches.waiting)
    app = FastAPI(
        title=f"tld: {card.name}", summary="Pictures from text.", docs_url=None, redoc_url=None
    )
    _add_drawing(app, batches, own, card.edge, metrics)
    _add_looking(app, batches, card, metrics)
    _add_problems(app)
    paths = [str(path) for route in app.routes if (path := getattr(route, "path", None))]
    app.add_middleware(Guard, access=access, paths=paths, answered=metrics.answered)
    return Service(app, batches)


def _add_drawing(
    app: FastAPI, batches: BatchQueue, own: SamplingSettings, edge: int, metrics: ServiceMetrics
) -> None:
    answers: dict[str, Any] = {
        "dependencies": _TOKEN,
        "responses": {200: {"model": GeneratedImages}, **PROBLEMS},
    }
    streams: dict[str, Any] = {"dependencies": _TOKEN, "responses": {**PROBLEMS, 200: STREAM}}
    respond, stream = partial(_respond, batches, metrics), partial(_stream, batches, metrics)

    @app.post("/pictures", **answers)
    async def generate_images(body: ImagesRequested, request: Request) -> Response:
        """Draw pictures, and answer when all are there. A client that leaves is not drawn for."""
        return await respond(image_request(body, own), request)

    @app.post("/pictures/stream", **streams)
    async def draw_images_and_tell(body: ImagesRequested) -> Response:
        """Draw pictures, and tell how far they are meanwhile, as lines of JSON."""
        return stream(image_request(body, own))

    @app.post("/interpolations", **answers)
    async def interpolate(body: InterpolationWanted, request: Request) -> Response:
        """Draw frames from one prompt and seed to others."""
        return await respond(interpolation_request(body, own), request)

    @app.post("/interpolations/stream", **streams)
    async def interpolate_and_tell(body: InterpolationWanted) -> Response:
        """Draw frames, and tell how far they are meanwhile, as lines of JSON."""
        return stream(interpolation_request(body, own))

    @app.post("/outpaintings", **answers)
    async def outpaint(body: OutpaintingWanted, request: Request) -> Response:
        """Paint a picture on at its sides, window by window. The picture itself stays as it is."""
        return await respond(await asyncio.to_thread(outpainting_request, body, own, edge), request)

    @app.post("/outpaintings/stream", **streams)
    async def outpaint_and_tell(body: OutpaintingWanted) -> Response:
        """Paint a picture on, and tell how far it is meanwhile, as lines of JSON: a step is a
        window."""
        return stream(await asyncio.to_thread(outpainting_request, body, own, edge))


async def _respond(
    batches: BatchQueue, metrics: ServiceMetrics, requested: DrawingRequest, request: Request
) -> Response:
    """The answer to a request, once all is there."""
    queued = _QueuedRequest(batches, requested)
    async with contextlib.aclosing(queued.follow(request.receive)) as events:
        last = [event async for event in events][-1]
    if isinstance(last, Finished):
        return Response(
            await asyncio.to_thread(answer, queued.request, last), media_type="application/json"
        )
    if isinstance(last, Failed):
        raise last.error
    metrics.left()
    return Response(status_code=CLIENT_LEFT)


def _stream(batches: BatchQueue, metrics: ServiceMetrics, requested: DrawingRequest) -> Response:
    return _EventStream(_QueuedRequest(batches, requested), metrics)


def _add_looking(app: FastAPI, batches: BatchQueue, card: Card, metrics: ServiceMetrics) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _content_policy(_PAGE)})

    @app.get("/card", dependencies=_TOKEN, responses={401: PROBLEMS[401]})
    async def the_card() -> Card:
        """What the model is, what it was made from, how good it is."""
        return card

    @app.get("/healthz")
    async def is_alive() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: PROBLEMS[503]})
    async def is_ready() -> Response:
        """Whether a request would be drawn: 200, or 503 while it shuts down, or after several
        failures."""
        return problem(200, "ready") if batches.is_healthy else problem(503, "not ready")

    @app.get("/metrics", dependencies=_TOKEN, include_in_schema=False)
    async def the_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def wrong_field(_: Request, error: RequestValidationError) -> Response:
        # Not the value itself: it may be what JSON cannot say, as NaN, or half a surrogate pair.
        return problem(
            422, [{key: part[key] for key in ("loc", "msg", "type")} for part in error.errors()]
        )

    @app.exception_handler(QueueFull)
    async def full(_: Request, error: QueueFull) -> Response:
        return problem(429, str(error), {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(ShuttingDown)
    async def closing(_: Request, error: ShuttingDown) -> Response:
        return problem(503, str(error), {"Retry-After": "10"})


class _QueuedRequest:
    """A client's request in the queue. What the device's thread tells arrives on the event loop."""

    def __init__(self, batches: BatchQueue, request: DrawingRequest) -> None:
        loop = asyncio.get_running_loop()

        def listen(event: QueueEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._events: asyncio.Queue[QueueEvent | None] = asyncio.Queue()
        self.request, self._batches = request, batches
        self.ticket = batches.submit(request, listen)

    async def follow(self, receive: Receive) -> AsyncGenerator[QueueEvent | None, None]:
        """What is told, to the last; None where the client left. In any case the request ends with
        this."""
        leaving = asyncio.create_task(self._watch(receive))
        try:
            while True:
                yield (event := await self._events.get())
                if not isinstance(event, Step):
                    return
        finally:
            leaving.cancel()
            self._batches.cancel(self.ticket)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._events.put_nowait(None)


class _EventStream(Response):
    """What happens to a request, as lines of JSON while it happens."""

    media_type = "application/x-ndjson"

    def __init__(self, queued: _QueuedRequest, metrics: ServiceMetrics) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.queued, self.metrics = queued, metrics

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
                    case Finished():
                        for image in await asyncio.to_thread(generated_images, request, event):
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
        return {
            "detail": "internal error; the log has it under this id",
            "id": log_failure("drawing"),
        }


def _content_policy(page: str) -> str:
    """Only the page's own script and style run, and it talks to this service alone."""
    parts = {
        tag: re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style")
    }
    hashes = {
        tag: base64.b64encode(hashlib.sha256(match.group(1).encode()).digest()).decode()
        for tag, match in parts.items()
        if match
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src "
        f"'sha256-{hashes['style']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
