"""What the service and its clients say to each other: requests with their limits, answers, pictures as PNG.

Knows no HTTP; the sentences here are those of its OpenAPI page.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, Field

from pipeline.dynamic_batches import Finished, PictureRequest
from tld_model.sampling import Sampling

MAX_COUNT = 16


class PicturesWanted(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {"prompt": "a small red star in the top left on a blue background"},
                {"prompt": "a lighthouse at dusk", "count": 4, "seed": 7, "steps": 30, "guidance": 3.5},
            ]
        },
    )

    prompt: str = Field(min_length=1, max_length=1000, pattern=r"\S")
    """What the pictures show."""
    count: int = Field(1, ge=1, le=MAX_COUNT)
    """How many pictures."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Of the noise: picture i has that of seed + i. The same seed gives the same picture."""
    steps: int | None = Field(None, ge=1, le=200)
    """Sampling steps; the run's own where it is not given."""
    guidance: float | None = Field(None, ge=1, le=30)
    """Guidance scale, 1 is none; the run's own where it is not given."""


class DrawnPicture(BaseModel):
    """One picture."""

    seed: int
    png: str
    """Base64; the file tells prompt, seed, steps and guidance in its text entry `tld`."""


class DrawnPictures(BaseModel):
    """What was asked for, with all settings, and the pictures."""

    prompt: str
    steps: int
    guidance: float
    pictures: list[DrawnPicture]


class Problem(BaseModel):
    """Why there are no pictures."""

    detail: Any
    """A sentence; for 422 a list of {loc, msg, type}, where loc names the field."""
    id: str | None = None
    """Where something broke: the id under which the service's log tells what."""


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid token"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": Problem, "description": "A field is wrong; `loc` names it"},
    429: {"model": Problem, "description": "The queue is full; Retry-After says in how many seconds to try again"},
    500: {"model": Problem, "description": "Something broke; `id` is in the log"},
    503: {"model": Problem, "description": "The service is shutting down"},
}
STREAM: dict[str, Any] = {
    "description": 'Lines of JSON, each with `event`: `{"event": "waiting", "ahead": 3}`, '
    '`{"event": "step", "done": 5, "steps": 20}`, `{"event": "picture", "seed": 7, "png": "…"}` for each picture, '
    'and last `{"event": "finished"}` or `{"event": "failed", "detail": "…", "id": "…"}`.',
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}


def picture_request(wanted: PicturesWanted, own: Sampling) -> PictureRequest:
    """What is drawn: `own` settings of sampling where the client gave none."""
    sampling = replace(
        own,
        steps=own.steps if wanted.steps is None else wanted.steps,
        guidance=own.guidance if wanted.guidance is None else float(wanted.guidance),
    )
    return PictureRequest(wanted.prompt, wanted.seed, wanted.count, sampling)


def answer(request: PictureRequest, finished: Finished) -> bytes:
    """DrawnPictures as JSON."""
    drawn = DrawnPictures(
        prompt=request.prompt,
        steps=request.sampling.steps,
        guidance=request.sampling.guidance,
        pictures=drawn_pictures(request, finished),
    )
    return drawn.model_dump_json().encode()


def drawn_pictures(request: PictureRequest, finished: Finished) -> list[DrawnPicture]:
    """Pictures as PNG files that say how they were made."""
    drawn: list[DrawnPicture] = []
    for seed, picture in enumerate(finished.pictures, request.seed):
        told = PngImagePlugin.PngInfo()
        settings = {"prompt": request.prompt, "seed": seed, "steps": request.sampling.steps}
        told.add_text("tld", json.dumps(settings | {"guidance": request.sampling.guidance}))
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", pnginfo=told)
        drawn.append(DrawnPicture(seed=seed, png=base64.b64encode(file.getvalue()).decode()))
    return drawn
