"""Requests of clients as requests for the queue, after the checks that need the model's size."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray

from data_catalog.image_formats import open_image
from flows.serve.schemas import (
    MAX_AREA,
    MAX_COUNT,
    EditWanted,
    ImagesRequested,
    InterpolationWanted,
    OutpaintingWanted,
    SamplingRequested,
)
from pipeline.generate.image_size import Size, size_problem
from pipeline.generate.request import InputFile
from pipeline.generate.tiling import Border
from pipeline.serving.requests import (
    EditingRequest,
    ImageRequest,
    ImageToEdit,
    InterpolationRequest,
    OutpaintingRequest,
)
from tld_model.config import SamplingSettings

_USUAL_STRENGTH = 0.7  # that of `tld edit`, whose module needs torch


def image_request(
    body: ImagesRequested, own: SamplingSettings, edge: int, multiple: int
) -> ImageRequest:
    """The request for the queue; `own` settings apply where the client set none.

    Raises RequestValidationError if the model cannot generate this size, or not so many images of
    it.
    """
    size = _size(body, edge, multiple)
    return ImageRequest(
        body.prompt, body.seed, body.count, _sampling(body, own), body.negative, size
    )


def interpolation_request(body: InterpolationWanted, own: SamplingSettings) -> InterpolationRequest:
    """The request for the queue, for frames. Raises RequestValidationError if all would be
    equal."""
    prompts = body.prompt, body.prompt if body.to_prompt is None else body.to_prompt
    seeds = body.seed, body.seed if body.to_seed is None else body.to_seed
    if prompts[0] == prompts[1] and seeds[0] == seeds[1]:
        raise wrong(
            "to_prompt", "must differ from the prompt, or all frames would be the same image"
        )
    how = _sampling(body, own), body.negative
    return InterpolationRequest(*prompts, *seeds, body.frames, *how)


def editing_request(body: EditWanted, own: SamplingSettings, edge: int) -> EditingRequest:
    """The request for the queue, for an image to change.

    Raises RequestValidationError if the image or the mask is not a PNG of the model's size, or if
    the mask selects nothing.
    """
    image = ImageToEdit(*_read_image("picture", body.picture, edge))
    if body.mask is not None:
        mask, file = _read_image("mask", body.mask, edge)
        paint = mask[:, :, 0] > 127
        if not paint.any():
            raise wrong("mask", "selects nothing: white is painted, black is kept")
        image = replace(image, paint=paint, mask_file=file)
    default = _USUAL_STRENGTH if image.paint is None else 1
    strength = default if body.strength is None else body.strength
    how = _sampling(body, own), body.negative
    return EditingRequest(body.prompt, image, float(strength), body.seed, body.count, *how)


def outpainting_request(
    body: OutpaintingWanted, own: SamplingSettings, edge: int
) -> OutpaintingRequest:
    """The request for the queue, for an image to extend.

    Raises RequestValidationError if the image is not a PNG of the model's size, or if the borders
    are all 0 or too large.
    """
    image, file = _read_image("picture", body.picture, edge)
    border = Border(body.left, body.right, body.top, body.bottom)
    how = _sampling(body, own), body.negative
    request = OutpaintingRequest(body.prompt, image, file, border, body.seed, *how)
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


def _size(body: ImagesRequested, edge: int, multiple: int) -> Size | None:
    """The requested size, or None if it is that of the model."""
    size = body.width or edge, body.height or edge
    if size == (edge, edge):
        return None
    field = "height" if body.width in (None, edge) else "width"
    if problem := size_problem(size, multiple):
        raise wrong(field, problem)
    width, height = size
    if width * height > MAX_AREA * edge**2:
        raise wrong(
            field,
            f"{width}x{height} has more than {MAX_AREA} times the pixels of the model's {edge}x"
            f"{edge}, the maximum of one image, for example {2 * edge}x{2 * edge}",
        )
    if body.count * width * height > MAX_COUNT * edge**2:
        raise wrong(
            field,
            f"{body.count} of {width}x{height} are more pixels than {MAX_COUNT} of {edge}x{edge}, "
            "the maximum; ask for fewer or smaller images",
        )
    return size


def _read_image(field: str, encoded: str, edge: int) -> tuple[NDArray[np.uint8], InputFile]:
    """The pixels [edge, edge, 3] of a file and its identity. If the format or the size is wrong,
    only the header is read."""
    try:
        content = base64.b64decode(encoded, validate=True)
        with open_image(content, formats=("PNG",)) as image:
            if image.size != (edge, edge):
                raise wrong(
                    field,
                    f"must have {edge} x {edge} pixels, but has {image.width} x {image.height}",
                )
            return np.array(image.convert("RGB")), InputFile.of(field, content)
    except RequestValidationError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors
        raise wrong(field, "is not a PNG file in base64") from error


def _sampling(body: SamplingRequested, own: SamplingSettings) -> SamplingSettings:
    """The sampling settings of a request. Raises RequestValidationError if the negative prompt
    would do nothing."""
    chosen: dict[str, Any] = {
        name: value
        for name in ("steps", "guidance", "solver")
        if (value := getattr(body, name)) is not None
    }
    sampling = replace(own, **chosen)
    if body.negative and sampling.guidance == 1:
        raise wrong("negative", "does nothing at guidance 1 (no guidance); raise the guidance")
    return replace(sampling, guidance=float(sampling.guidance))
