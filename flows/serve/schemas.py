"""Request and response schemas of the service, and conversion to and from them.

The docstrings of the models appear on the OpenAPI page.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_catalog.image_formats import open_image
from pipeline.generate.request import InputFile, shows_something
from pipeline.generate.tiling import Border
from pipeline.serving.requests import (
    ImageRequest,
    InterpolationRequest,
    OutpaintingRequest,
)
from tld_model.config import SamplingSettings

MAX_COUNT = 16
LARGEST_IMAGE = 6_000_000  # characters

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
_STAR = "a small red star in the top left on a blue background"
_Prompt = Annotated[
    str,
    Field(min_length=1, max_length=1000, pattern=r"\S"),
    AfterValidator(shows_something),  # \S is not quite what Python calls blank
]
_Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class _Request(BaseModel):
    model_config = _STRICT

    prompt: _Prompt
    """What the image shows."""
    seed: _Seed = 0
    """Random seed; image i uses seed + i. The same seed gives the same image."""
    steps: int | None = Field(None, ge=1, le=200)
    """Number of sampling steps; by default that of the run."""
    guidance: float | None = Field(None, ge=1, le=30)
    """Guidance scale, where 1 is no guidance; by default that of the run."""


class ImagesRequested(_Request):
    """Images of a prompt."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": _STAR},
                {
                    "prompt": "a lighthouse at dusk",
                    "count": 4,
                    "seed": 7,
                    "steps": 30,
                    "guidance": 3.5,
                },
            ]
        },
    )

    count: int = Field(1, ge=1, le=MAX_COUNT)
    """Number of images."""


class InterpolationWanted(_Request):
    """Frames from one prompt and seed to others."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": _STAR, "to_prompt": _STAR.replace("red", "green"), "frames": 8}]
        }
    )

    to_prompt: _Prompt | None = None
    """What the last frame shows; by default the same as the first."""
    to_seed: _Seed | None = None
    """Random seed of the last frame; by default the same as the first."""
    frames: int = Field(8, ge=2, le=MAX_COUNT)
    """Number of frames, both ends included."""


class OutpaintingWanted(_Request):
    """An image to extend at its sides."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={"examples": [{"prompt": _STAR, "picture": "…", "right": 64}]}
    )

    picture: str = Field(max_length=LARGEST_IMAGE)
    """Base64 of an RGB PNG file of the model's size (`edge` in `/card`)."""
    left: int = Field(0, ge=0, le=4096)
    """Pixels to add at this side."""
    right: int = Field(0, ge=0, le=4096)
    """Pixels to add at this side."""
    top: int = Field(0, ge=0, le=4096)
    """Pixels to add at this side."""
    bottom: int = Field(0, ge=0, le=4096)
    """Pixels to add at this side."""


class GeneratedImage(BaseModel):
    """One image."""

    seed: int
    png: str
    """Base64 of a PNG file, whose text entry `tld` has the metadata that `--like` reads."""


class GeneratedImages(BaseModel):
    """The request with all its settings, and the images."""

    prompt: str
    steps: int
    guidance: float
    pictures: list[GeneratedImage]


class Problem(BaseModel):
    """Why there are no images."""

    detail: Any
    """A sentence; for 422 a list of {loc, msg, type}, in which loc names the field."""
    id: str | None = None
    """For an internal error, the id of its entry in the service's log."""


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request is not valid HTTP"},
    401: {"model": Problem, "description": "No valid token"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "The body is too large"},
    421: {"model": Problem, "description": "The service does not answer to this host name"},
    422: {"model": Problem, "description": "A field is invalid; `loc` names it"},
    429: {
        "model": Problem,
        "description": "The queue is full; try again after the seconds in Retry-After",
    },
    500: {"model": Problem, "description": "Internal error; `id` is in the service's log"},
    503: {"model": Problem, "description": "The service is shutting down"},
}
STREAM: dict[str, Any] = {
    "description": 'Lines of JSON, each with `event`: `{"event": "waiting", "ahead": 3}`, '
    '`{"event": "step", "done": 5, "steps": 20}`, `{"event": "picture", "seed": 7, "png": "…"}` '
    'for each image, and last `{"event": "finished"}` or '
    '`{"event": "failed", "detail": "…", "id": "…"}`.',
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}


def image_request(body: ImagesRequested, own: SamplingSettings) -> ImageRequest:
    """The request for the queue; `own` settings apply where the client set none."""
    return ImageRequest(body.prompt, body.seed, body.count, _sampling(body, own))


def interpolation_request(body: InterpolationWanted, own: SamplingSettings) -> InterpolationRequest:
    """The request for the queue, for frames."""
    prompts = body.prompt, body.prompt if body.to_prompt is None else body.to_prompt
    seeds = body.seed, body.seed if body.to_seed is None else body.to_seed
    return InterpolationRequest(*prompts, *seeds, body.frames, _sampling(body, own))


def outpainting_request(
    body: OutpaintingWanted, own: SamplingSettings, edge: int
) -> OutpaintingRequest:
    """The request for the queue, for an image to extend.

    Raises RequestValidationError if the image is not a PNG of the model's size, or if the borders
    are all 0 or too large.
    """
    file, image = _read_png(body.picture, edge)
    border = Border(body.left, body.right, body.top, body.bottom)
    sampling = _sampling(body, own)
    request = OutpaintingRequest(body.prompt, image, file, border, body.seed, sampling)
    if request.count == 0:
        raise wrong("right", "give the number of pixels to add on at least one side")
    if request.count > MAX_COUNT:
        raise wrong(
            "right",
            f"these borders need {request.count} windows of {edge} pixels; the maximum is "
            f"{MAX_COUNT}",
        )
    return request


def wrong(field: str, message: str) -> RequestValidationError:
    """Validation error of a field."""
    return RequestValidationError([{"loc": ("body", field), "msg": message, "type": "value_error"}])


def _read_png(encoded: str, edge: int) -> tuple[InputFile, NDArray[np.uint8]]:
    """The identity of a file, and its pixels [edge, edge, 3]. If the format or the size is wrong,
    only the header is read."""
    try:
        content = base64.b64decode(encoded, validate=True)
        with open_image(content, formats=("PNG",)) as image:
            if image.size != (edge, edge):
                raise wrong(
                    "picture",
                    f"must have {edge} x {edge} pixels, but has {image.width} x {image.height}",
                )
            return InputFile.of("picture", content), np.asarray(image.convert("RGB"))
    except RequestValidationError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors
        raise wrong("picture", "is not a PNG file in base64") from error


def _sampling(body: _Request, own: SamplingSettings) -> SamplingSettings:
    return replace(
        own,
        steps=own.steps if body.steps is None else body.steps,
        guidance=own.guidance if body.guidance is None else float(body.guidance),
    )
