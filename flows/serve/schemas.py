"""Request and response schemas of the service.

The docstrings of the models appear on the OpenAPI page.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.generate.request import shows_something
from tld_model.config import SolverName

MAX_COUNT = 16
MAX_AREA = 4  # of one image, in images of the model's size
LARGEST_IMAGE = 6_000_000  # characters
LARGEST_MASK = 2_000_000

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
_STAR = "a small red star in the top left on a blue background"
Prompt = Annotated[
    str,
    Field(min_length=1, max_length=1000, pattern=r"\S"),
    AfterValidator(shows_something),  # \S is not quite what Python calls blank
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

Previews = Annotated[
    bool,
    Query(description="Send what the images look like by now, about once a second, as `preview`."),
]


class SamplingRequested(BaseModel):
    """What all requests have."""

    model_config = STRICT

    prompt: Prompt
    """What the image shows."""
    negative: str = Field("", max_length=1000)
    """Negative prompt: what the image should not show. It needs a guidance above 1."""
    seed: Seed = 0
    """Random seed; image i uses seed + i. The same seed gives the same image."""
    steps: int | None = Field(None, ge=1, le=200)
    """Number of sampling steps; by default that of the run."""
    guidance: float | None = Field(None, ge=1, le=30)
    """Guidance scale, where 1 is no guidance; by default that of the run."""
    solver: SolverName | None = None
    """ODE solver; by default that of the run."""


class ImagesRequested(SamplingRequested):
    """Images of a prompt."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": _STAR},
                {
                    "prompt": "a lighthouse at dusk",
                    "count": 4,
                    "seed": 7,
                    "steps": 30,
                    "guidance": 3.5,
                    "negative": "people",
                    "width": 384,
                },
            ]
        },
    )

    count: int = Field(1, ge=1, le=MAX_COUNT)
    """Number of images."""
    width: int | None = Field(None, ge=1, le=16_384)
    """Width in pixels, a multiple of `multiple` in `/card`; by default that of the model."""
    height: int | None = Field(None, ge=1, le=16_384)
    """Height in pixels, a multiple of `multiple` in `/card`; by default that of the model."""


class InterpolationWanted(SamplingRequested):
    """Frames from one prompt and seed to others. At least one of them must differ."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": _STAR, "to_prompt": _STAR.replace("red", "green"), "frames": 8}]
        }
    )

    to_prompt: Prompt | None = None
    """What the last frame shows; by default the same as the first."""
    to_seed: Seed | None = None
    """Random seed of the last frame; by default the same as the first."""
    frames: int = Field(8, ge=2, le=MAX_COUNT)
    """Number of frames, both ends included."""


class EditWanted(SamplingRequested):
    """An image to change: all of it, or the part that a mask selects."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={"examples": [{"prompt": _STAR, "picture": "…", "strength": 0.6}]}
    )

    picture: str = Field(max_length=LARGEST_IMAGE)
    """Base64 of an RGB PNG file of the model's size (`edge` in `/card`)."""
    mask: str | None = Field(None, max_length=LARGEST_MASK)
    """Base64 of a PNG file of the same size: white is painted, black is kept."""
    strength: float | None = Field(None, gt=0, le=1)
    """How much of the image is replaced; by default 0.7, or 1 with a mask, which ignores what was
    in the painted part."""
    count: int = Field(1, ge=1, le=MAX_COUNT)
    """Number of images."""


class OutpaintingWanted(SamplingRequested):
    """An image to extend at its sides."""

    model_config = STRICT | ConfigDict(
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


class PromptToCount(BaseModel):
    """A prompt whose tokens to count."""

    model_config = STRICT

    prompt: str = Field(max_length=1000)
    """The prompt."""


class TokenCount(BaseModel):
    """How long a prompt is for the text encoder."""

    tokens: int
    """Tokens of the prompt, those for its start and end included."""
    limit: int
    """Tokens that the text encoder reads; what comes after them has no effect."""


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
    '`{"event": "step", "done": 5, "steps": 20}`, `{"event": "preview", "seed": 7, "png": "…"}` '
    'for each image if `previews` was true, `{"event": "picture", "seed": 7, "png": "…"}` '
    'for each image, and last `{"event": "finished"}` or '
    '`{"event": "failed", "detail": "…", "id": "…"}`.',
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}
