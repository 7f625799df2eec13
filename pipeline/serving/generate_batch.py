"""Generation of the images of a batch of requests.

b images of the batch   c latent channels   y, x latent height and width   t text width
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.compute.devices import wait_for
from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import image_to_image, levels_from
from pipeline.generate.inpaint import inpaint, pass_strengths
from pipeline.generate.interpolate import interpolate
from pipeline.generate.outpaint import outpaint
from pipeline.serving.batch_queue import BeforeStep, DrawFn
from pipeline.serving.previews import MakePreviews
from pipeline.serving.requests import (
    DrawingRequest,
    EditingRequest,
    ImageRequest,
    InterpolationRequest,
    OutpaintingRequest,
)
from tld_model.sampler import DenoiseFn, noise_levels


def draw_with(generator: ImageGenerator) -> DrawFn:
    """A function that generates the images of a batch.

    An image depends only on its prompt, its seed and the sampling settings: other requests in the
    batch, and cancelled ones, change no more than rounding.
    """
    generate_images = _images_with(generator)

    def draw(
        requests: Sequence[DrawingRequest], before_step: BeforeStep
    ) -> Sequence[NDArray[np.uint8]]:
        match requests:
            case [InterpolationRequest() as one]:
                return [_interpolated(generator, one, before_step)]
            case [EditingRequest() as one]:
                return [_edited(generator, one, before_step)]
            case [OutpaintingRequest() as one]:
                return [_outpainted(generator, one, before_step)]
            case _:
                return generate_images(
                    [request for request in requests if isinstance(request, ImageRequest)],
                    before_step,
                )

    return draw


def _with_previews(
    generator: ImageGenerator, counts: Sequence[int]
) -> tuple[ImageGenerator, Callable[[], MakePreviews | None]]:
    """The generator, and what makes previews of its latest prediction, for requests of so many
    images; None before the first one."""
    latest: list[Tensor] = []

    def note(latents: Tensor) -> None:
        latest[:] = [latents]

    def images() -> Sequence[NDArray[np.uint8]]:
        return np.split(generator.decode(latest[0]), np.cumsum(counts)[:-1])

    inference = replace(generator.inference, after_prediction=note)
    return replace(generator, inference=inference), lambda: images if latest else None


def _watched(
    generator: ImageGenerator, request: DrawingRequest, calls: int, before_step: BeforeStep
) -> ImageGenerator:
    """The generator, which reports before each of its calls how many of the steps are done."""
    numbers, steps = itertools.count(), request.steps
    watched, previews = _with_previews(generator, [request.count])

    def before_call() -> None:
        wait_for(generator.device)  # or all steps would be queued before a client can leave
        before_step(min(next(numbers) * steps // calls, steps), previews())

    return replace(watched, inference=replace(watched.inference, before_call=before_call))


def _interpolated(
    generator: ImageGenerator, request: InterpolationRequest, before_step: BeforeStep
) -> NDArray[np.uint8]:
    """The frames, uint8 [count, h, w, 3]."""
    watched = _watched(generator, request, request.sampling.model_calls, before_step)
    prompts, seeds = (request.prompt, request.to_prompt), (request.seed, request.to_seed)
    how = request.sampling, request.negative
    frames = interpolate(watched, prompts, seeds, request.count, *how)
    before_step(request.steps)
    return frames


def _edited(
    generator: ImageGenerator, request: EditingRequest, before_step: BeforeStep
) -> NDArray[np.uint8]:
    """The variations, uint8 [count, h, w, 3]."""
    image, steps, strength = request.image, request.steps, request.strength
    strengths = [strength] if image.paint is None else pass_strengths(generator, strength)
    calls = sum(
        replace(request.sampling, steps=len(levels_from(each, steps))).model_calls
        for each in strengths
    )
    watched = _watched(generator, request, calls, before_step)
    prompts, seeds = (
        [request.prompt] * request.count,
        [request.seed + i for i in range(request.count)],
    )
    how = seeds, request.sampling, request.negative
    if image.paint is None:
        edited = image_to_image(watched, prompts, image.pixels, strength, *how)
    else:
        edited = inpaint(watched, prompts, image.pixels, image.paint, *how, strength)
    before_step(steps)
    return edited


def _outpainted(
    generator: ImageGenerator, request: OutpaintingRequest, before_step: BeforeStep
) -> NDArray[np.uint8]:
    """The image, uint8 [1, h, w, 3]. Cancellation takes effect between windows."""
    canvas = request.image
    before_step(0)
    grown = outpaint(
        generator,
        request.prompt,
        canvas,
        request.border,
        request.overlap,
        request.seed,
        request.sampling,
        request.negative,
    )
    for done, canvas in enumerate(grown, 1):
        before_step(done, _made_already(canvas[None]))
    return canvas[None]


def _made_already(images: NDArray[np.uint8]) -> MakePreviews:
    return lambda: [images]


def _images_with(
    generator: ImageGenerator,
) -> Callable[[Sequence[ImageRequest], BeforeStep], list[NDArray[np.uint8]]]:
    def draw(requests: Sequence[ImageRequest], before_step: BeforeStep) -> list[NDArray[np.uint8]]:
        first = requests[0]  # with the settings of all
        sampling = first.sampling
        counts = torch.tensor([request.count for request in requests])
        watched, previews = _with_previews(generator, counts.tolist())
        owners = torch.arange(len(requests)).repeat_interleave(
            counts
        )  # [b], the request of each image
        seeds = [request.seed + i for request in requests for i in range(request.count)]
        noise = generator.noise(seeds, first.size)  # [b, c, y, x]
        text = generator.text_encoder([request.prompt for request in requests])[
            owners.to(generator.device)
        ]  # [b, t]

        def active_at(level: float) -> Tensor:
            """Which images are still requested at this noise level [b]."""
            done = int(
                (1 - level) * sampling.steps + 1e-3
            )  # level i is 1 - i/steps, the first a little less
            wait_for(generator.device)  # as above
            return torch.tensor(before_step(done, previews()))[owners]

        denoise = _on_active_rows(generator.guided(sampling, first.negative), active_at)
        levels = noise_levels(sampling.steps)
        latents = watched.inference.sample(sampling.solver, denoise, noise, text, levels)
        before_step(sampling.steps)
        return np.split(generator.decode(latents), counts.cumsum(0)[:-1].tolist())

    return draw


def _on_active_rows(denoise: DenoiseFn, active_at: Callable[[float], Tensor]) -> DenoiseFn:
    """Denoise only the images that are still requested; the others become zeros."""

    def denoise_active(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        active = active_at(float(sigma[0]))
        if active.all():
            return denoise(noisy, sigma, text)
        rows = active.nonzero()[:, 0]
        here = rows.to(noisy.device, non_blocking=True)
        clean = denoise(noisy[here], sigma[rows], text[here])
        return torch.zeros_like(noisy).index_copy(0, here, clean)

    return denoise_active
