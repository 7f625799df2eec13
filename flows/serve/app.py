"""The web application: routes, their requests and answers, and the page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flows.serve.answers import Responder
from flows.serve.card import Card
from flows.serve.guard import TOKEN, Access, Guard
from flows.serve.metrics import ServiceMetrics
from flows.serve.openai_api import add_openai_api
from flows.serve.page_files import add_page
from flows.serve.problems import problem
from flows.serve.queue_requests import (
    editing_request,
    image_request,
    interpolation_request,
    outpainting_request,
)
from flows.serve.schemas import (
    MAX_COUNT,
    PROBLEMS,
    STREAM,
    EditWanted,
    GeneratedImages,
    ImagesRequested,
    InterpolationWanted,
    OutpaintingWanted,
    Previews,
    PromptToCount,
    TokenCount,
)
from pipeline.generate.image_metadata import Origin
from pipeline.serving.batch_queue import BatchQueue, DrawFn, WorkOf
from pipeline.serving.queue_events import QueueFull, ShuttingDown, TooMuchWork
from pipeline.serving.requests import ImageRequest
from pipeline.serving.token_counter import CountTokens
from tld_model.config import SamplingSettings

_BATCHES_WAITING = 4  # length of the queue in full batches


@dataclass(frozen=True, slots=True)
class Service:
    """The application and its queue, which must be closed before the server stops."""

    app: FastAPI
    batches: BatchQueue


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the service uses it."""

    draw: DrawFn
    work_of: WorkOf
    card: Card
    origin: Origin
    """What its images say of where they come from."""
    own: SamplingSettings
    """Sampling settings that apply where a request sets none."""
    count_tokens: CountTokens
    longest_prompt: int
    """Tokens that its text encoder reads."""


def image_service(model: ServedModel, access: Access, most_at_once: int) -> Service:
    """A service that generates with a model, in batches of at most `most_at_once` images."""
    metrics = ServiceMetrics()
    most_at_once = max(most_at_once, MAX_COUNT)
    most_waiting = _BATCHES_WAITING * most_at_once
    batches = BatchQueue(
        model.draw, model.work_of, most_at_once, most_waiting, metrics.batch_finished
    )
    metrics.watch(lambda: batches.waiting)
    app = FastAPI(
        title=f"tld: {model.card.name}", summary="Text to image.", docs_url=None, redoc_url=None
    )
    responder = Responder(batches, metrics, model.origin)
    _add_generation(app, responder, model)
    _add_editing(app, responder, model)
    _add_facts(app, model)
    add_page(app)
    _add_status(app, batches, metrics)
    _add_problems(app)
    paths = [str(path) for route in app.routes if (path := getattr(route, "path", None))]
    app.add_middleware(Guard, access=access, paths=paths, answered=metrics.answered)
    return Service(app, batches)


_ANSWERS: dict[str, Any] = {
    "dependencies": TOKEN,
    "responses": {200: {"model": GeneratedImages}, **PROBLEMS},
}
_STREAMS: dict[str, Any] = {"dependencies": TOKEN, "responses": {**PROBLEMS, 200: STREAM}}
# The operation IDs are part of the API: generated clients name their functions after them.


def _add_generation(app: FastAPI, responder: Responder, model: ServedModel) -> None:
    def read(body: ImagesRequested) -> ImageRequest:
        return image_request(body, model.own, model.card.edge, model.card.multiple)

    add_openai_api(app, responder, read)
    own = model.own

    @app.post("/pictures", **_ANSWERS)
    async def generate_images(body: ImagesRequested, request: Request) -> Response:
        """Generate images, and answer when all are finished. If the client disconnects, its request
        is cancelled."""
        return await responder.respond(read(body), request)

    @app.post(
        "/pictures/stream", operation_id="draw_images_and_tell_pictures_stream_post", **_STREAMS
    )
    async def stream_images(body: ImagesRequested, *, previews: Previews = False) -> Response:
        """Generate images, and report progress as lines of JSON."""
        return responder.stream(read(body), previews=previews)

    @app.post("/interpolations", **_ANSWERS)
    async def interpolate(body: InterpolationWanted, request: Request) -> Response:
        """Generate frames from one prompt and seed to others."""
        return await responder.respond(interpolation_request(body, own), request)

    @app.post(
        "/interpolations/stream",
        operation_id="interpolate_and_tell_interpolations_stream_post",
        **_STREAMS,
    )
    async def stream_interpolation(
        body: InterpolationWanted, *, previews: Previews = False
    ) -> Response:
        """Generate frames, and report progress as lines of JSON."""
        return responder.stream(interpolation_request(body, own), previews=previews)


def _add_editing(app: FastAPI, responder: Responder, model: ServedModel) -> None:
    own, edge = model.own, model.card.edge

    @app.post("/edits", **_ANSWERS)
    async def edit(body: EditWanted, request: Request) -> Response:
        """Change an image: all of it (image-to-image), or where a mask is white (inpainting)."""
        requested = await asyncio.to_thread(editing_request, body, own, edge)
        return await responder.respond(requested, request)

    @app.post("/edits/stream", **_STREAMS)
    async def stream_edit(body: EditWanted, *, previews: Previews = False) -> Response:
        """Change an image, and report progress as lines of JSON."""
        requested = await asyncio.to_thread(editing_request, body, own, edge)
        return responder.stream(requested, previews=previews)

    @app.post("/outpaintings", **_ANSWERS)
    async def outpaint(body: OutpaintingWanted, request: Request) -> Response:
        """Extend an image at its sides, window by window. The image itself is unchanged."""
        requested = await asyncio.to_thread(outpainting_request, body, own, edge)
        return await responder.respond(requested, request)

    @app.post(
        "/outpaintings/stream",
        operation_id="outpaint_and_tell_outpaintings_stream_post",
        **_STREAMS,
    )
    async def stream_outpainting(
        body: OutpaintingWanted, *, previews: Previews = False
    ) -> Response:
        """Extend an image, and report progress as lines of JSON, in which a step is a window."""
        requested = await asyncio.to_thread(outpainting_request, body, own, edge)
        return responder.stream(requested, previews=previews)


def _add_facts(app: FastAPI, model: ServedModel) -> None:
    @app.get("/card", dependencies=TOKEN, responses={401: PROBLEMS[401]})
    async def the_card() -> Card:
        """What the model is, what it was trained on, and its scores."""
        return model.card

    @app.post("/tokens", dependencies=TOKEN, responses=PROBLEMS)
    def count_tokens(body: PromptToCount) -> TokenCount:
        """Count the tokens of a prompt, to know whether the text encoder reads all of it."""
        tokens = model.count_tokens(body.prompt)
        return TokenCount(tokens=tokens, limit=model.longest_prompt)


def _add_status(app: FastAPI, batches: BatchQueue, metrics: ServiceMetrics) -> None:
    @app.get("/healthz")
    async def is_alive() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: PROBLEMS[503]})
    async def is_ready() -> Response:
        """Whether requests are likely to succeed: 200, or 503 during shutdown or after several
        failed batches."""
        return problem(200, "ready") if batches.is_healthy else problem(503, "not ready")

    @app.get("/metrics", dependencies=TOKEN, include_in_schema=False)
    async def the_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def wrong_field(request: Request, error: RequestValidationError) -> Response:
        # Without the value, which JSON may be unable to represent (NaN, half a surrogate pair).
        detail = [{key: part[key] for key in ("loc", "msg", "type")} for part in error.errors()]
        return problem(422, detail, path=request.url.path)

    @app.exception_handler(TooMuchWork)
    async def too_much(request: Request, error: TooMuchWork) -> Response:
        detail = [{"loc": ("body", "steps"), "msg": str(error), "type": "value_error"}]
        return problem(422, detail, path=request.url.path)

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> Response:
        headers = {"Retry-After": str(error.retry_after_s)}
        return problem(429, str(error), headers, path=request.url.path)

    @app.exception_handler(ShuttingDown)
    async def closing(request: Request, error: ShuttingDown) -> Response:
        return problem(503, str(error), {"Retry-After": "10"}, path=request.url.path)

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, error.detail, error.headers, path=request.url.path)
