"""Images of a finished request as the service sends them: PNG files in base64, in JSON."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.serve.schemas import GeneratedImage, GeneratedImages
from pipeline.generate.image_metadata import AnyRequest, ImageMetadata, Origin
from pipeline.generate.png_metadata import png_file
from pipeline.generate.request import EditRequest, InterpolateRequest, SampleRequest
from pipeline.serving.queue_events import Finished
from pipeline.serving.requests import (
    DrawingRequest,
    EditingRequest,
    ImageRequest,
    InterpolationRequest,
)


def answer(request: DrawingRequest, finished: Finished, origin: Origin) -> bytes:
    """The answer to a request: GeneratedImages as JSON."""
    images = GeneratedImages(
        prompt=request.prompt,
        steps=request.sampling.steps,
        guidance=request.sampling.guidance,
        pictures=generated_images(request, finished, origin),
    )
    return images.model_dump_json().encode()


def generated_images(
    request: DrawingRequest, finished: Finished, origin: Origin
) -> list[GeneratedImage]:
    """Images as PNG files, each with the metadata that repeats it."""
    images: list[GeneratedImage] = []
    for number, pixels in enumerate(finished.images):
        recorded = _recorded(request, number, (pixels.shape[1], pixels.shape[0]))
        metadata = ImageMetadata(request=recorded, origin=origin)
        png = base64.b64encode(png_file(Image.fromarray(pixels), metadata)).decode()
        images.append(GeneratedImage(seed=recorded.seed, png=png))
    return images


def preview_images(request: DrawingRequest, images: NDArray[np.uint8]) -> list[GeneratedImage]:
    """Unfinished images as PNG files without metadata, which would describe finished ones."""
    previews: list[GeneratedImage] = []
    for number, pixels in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        seed = _recorded(request, number, (pixels.shape[1], pixels.shape[0])).seed
        previews.append(GeneratedImage(seed=seed, png=base64.b64encode(file.getvalue()).decode()))
    return previews


def _recorded(request: DrawingRequest, number: int, size: tuple[int, int]) -> AnyRequest:
    """What the command line would be asked for, to generate this image of a request."""
    shared: dict[str, Any] = {
        "seed": request.seed,
        "negative": request.negative,
        **asdict(request.sampling),
    }
    if isinstance(request, ImageRequest):
        shared["seed"] += number
        prompts = (request.prompt,)
        return SampleRequest(prompts=prompts, count=1, size=size, layout="picture", **shared)
    if isinstance(request, InterpolationRequest):
        return InterpolateRequest(
            prompts=(request.prompt, request.to_prompt),
            to_seed=None if request.to_seed == request.seed else request.to_seed,
            frames=request.count,
            frame=number,
            **shared,
        )
    if isinstance(request, EditingRequest):
        shared["seed"] += number
        return EditRequest(
            prompts=(request.prompt,),
            image=request.image.file,
            mask=request.image.mask_file,
            strength=request.strength,
            **shared,
        )
    return EditRequest(
        prompts=(request.prompt,),
        image=request.image_file,
        outpaint=request.border,
        overlap=request.overlap,
        **shared,
    )
