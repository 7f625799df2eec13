"""Generation in the form of OpenAI's images API, for programs that know it already.

It has the queue, the tokens and the limits of `POST /pictures`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from flows.serve.answers import Responder
from flows.serve.guard import CLIENT_LEFT, TOKEN
from flows.serve.images import generated_images
from flows.serve.schemas import MAX_COUNT, STRICT, ImagesRequested, Prompt, Seed
from pipeline.serving.requests import ImageRequest

_NAMES = {"count": "n", "width": "size", "height": "size"}  # of our fields in that API
_SEEDS = 2**32 - MAX_COUNT  # so that the seed of every image is one that may be asked for


class OpenaiImagesRequested(BaseModel):
    """Images of a prompt, as clients of OpenAI's API ask for them."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a lighthouse at dusk", "n": 2, "seed": 7}]}
    )

    prompt: Prompt
    """What the image shows."""
    n: int | None = Field(None, ge=1, le=MAX_COUNT)
    """Number of images; by default 1."""
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")] | None = None
    """Width and height in pixels, as `256x256`; by default, and for `auto`, the model's size."""
    seed: Seed | None = None
    """Random seed, an extension; image i uses seed + i. By default a new one each time."""
    response_format: Literal["b64_json"] | None = None
    """How images are sent: in the answer, never behind a URL."""
    model: str | None = Field(None, max_length=300)
    """Without effect: the service has one model."""
    user: str | None = Field(None, max_length=300)
    """Without effect."""


class OpenaiImage(BaseModel):
    """One image."""

    b64_json: str
    """Base64 of a PNG file, as in the answers of `/pictures`."""
    seed: int
    """The seed that makes this image again, an extension."""


class OpenaiImages(BaseModel):
    """The images of a request."""

    created: int
    """When they were made, in seconds since 1970."""
    data: list[OpenaiImage]


class OpenaiError(BaseModel):
    """Why there are no images."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    """The field that is wrong."""
    code: str | None
    """invalid_api_key (401) or rate_limit_exceeded (429)."""


class OpenaiProblem(BaseModel):
    """An error in the form of OpenAI's API."""

    error: OpenaiError


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": OpenaiImages},
    "default": {"model": OpenaiProblem, "description": "Why there are no images"},
}


def add_openai_api(
    app: FastAPI, responder: Responder, read: Callable[[ImagesRequested], ImageRequest]
) -> None:
    """Answer at the path of OpenAI's API. `read` makes our request one for the queue."""

    @app.post("/v1/images/generations", dependencies=TOKEN, responses=_RESPONSES)
    async def create_images(body: OpenaiImagesRequested, request: Request) -> Response:
        """Generate images, for clients of OpenAI's API."""
        requested = _queued(body, read)
        finished = await responder.finish(requested, request)
        if finished is None:
            return Response(status_code=CLIENT_LEFT)
        images = await asyncio.to_thread(generated_images, requested, finished, responder.origin)
        data = [OpenaiImage(b64_json=image.png, seed=image.seed) for image in images]
        answer = OpenaiImages(created=int(time.time()), data=data)
        return Response(answer.model_dump_json(), media_type="application/json")


def _queued(
    body: OpenaiImagesRequested, read: Callable[[ImagesRequested], ImageRequest]
) -> ImageRequest:
    """The request for the queue. Raises RequestValidationError with the names of that API."""
    sides = body.size.split("x") if body.size and body.size != "auto" else []
    width, height = map(int, sides) if sides else (None, None)
    own = ImagesRequested.model_construct(
        prompt=body.prompt,
        count=1 if body.n is None else body.n,
        seed=secrets.randbelow(_SEEDS) if body.seed is None else body.seed,
        width=width,
        height=height,
    )
    try:
        return read(own)
    except RequestValidationError as error:
        problems = [
            {**part, "loc": ("body", _NAMES.get(part["loc"][-1], part["loc"][-1]))}
            for part in error.errors()
        ]
        raise RequestValidationError(problems) from error
