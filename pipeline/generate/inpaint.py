"""Inpainting: repaints a masked part of an image by captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_catalog.images import Images
from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import check_image, levels_from
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings
from tld_model.inpainting import keep_known_region, known_part, latent_mask, with_known

_SECOND_PASS_LEVEL = 0.7  # noise level
_SECOND_PASS_SEED = 1 << 32  # added to a seed, so that it differs from the seeds of all images


@torch.no_grad()
def inpaint(
    generate: ImageGenerator,
    captions: Sequence[str],
    image: NDArray[np.uint8],
    paint: NDArray[np.bool_],
    seeds: Sequence[int] | None = None,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
    strength: float = 1,
) -> Images:
    """Repaint an image [h, w, 3] where `paint` [h, w] is true, for each caption.

    Returns images uint8 [n, h, w, 3].

    Every other pixel is unchanged. An inpainting model (model.inpainting) takes the known part as
    input. Any other model is constrained to it at every step, and samples twice. The pixels under
    the mask do not matter unless the strength is below 1: then sampling starts from them, as in
    image_to_image. Raises InputImageError if the image, mask or strength is not usable.
    """
    check_image(generate, image, paint)
    seeds = range(len(captions)) if seeds is None else seeds
    text, guided = generate.text(captions), partial(generate.guided, sampling, negative)
    mask = latent_mask(torch.from_numpy(paint), generate.denoiser.config.latent_size).to(
        generate.device
    )
    mask = mask.expand(len(captions), -1, -1, -1)

    def solve(start: Images, strength: float, seeds: Sequence[int]) -> Images:
        clean = generate.encode(start).expand(len(captions), -1, -1, -1)
        if generate.denoiser.config.inpainting:
            denoiser = generate.inference.denoiser(generate.denoiser)
            denoise = guided(denoise=with_known(denoiser, known_part(clean, mask)))
        else:
            denoise = keep_known_region(guided(), clean, mask)
        levels = levels_from(strength, sampling.steps)
        amount = torch.where(
            mask.bool(), levels[0], strength
        )  # strength 1 starts from pure noise, at a level below 1
        noisy = (1 - amount) * clean + amount * generate.noise(seeds)
        latents = generate.inference.sample(sampling.solver, denoise, noisy, text, levels)
        return np.where(paint[None, :, :, None], generate.decode(latents), image[None])

    painted = solve((_fill_masked(image, paint) if strength == 1 else image)[None], strength, seeds)
    for again in pass_strengths(generate, strength)[1:]:
        # Latents do not show what the edge of the mask cuts off, but the composed image does: so
        # encode it and solve again.
        painted = solve(painted, again, [seed + _SECOND_PASS_SEED for seed in seeds])
    return painted


def pass_strengths(generate: ImageGenerator, strength: float) -> list[float]:
    """The strength of each time that the model samples: once if it is an inpainting model, else
    twice."""
    second = [] if generate.denoiser.config.inpainting else [min(strength, _SECOND_PASS_LEVEL)]
    return [strength, *second]


def _fill_masked(image: NDArray[np.uint8], paint: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with each masked pixel replaced by the nearest known one.

    The receptive field of the encoder is wider than one latent, so it must not see the old pixels.
    """
    if paint.all():
        return image
    source = paint.astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        source, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    pixel_of = np.zeros((nearest.max() + 1, 3), np.uint8)
    pixel_of[nearest[~paint]] = image[~paint]
    continued: NDArray[np.uint8] = pixel_of[nearest]
    return continued
