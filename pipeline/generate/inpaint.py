"""A picture, what of it is to be painted, and captions -> pictures. Knows nothing of stages or
scores."""

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
from tld_model.sampler import sample

_AGAIN_FROM = 0.7  # noise level
_OTHER_NOISE = 1 << 32  # from a seed to one that no picture beside it has


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
    """A picture [h, w, 3] whose pixels are painted where `paint` [h, w] is true, for each caption:
    uint8 [n, h, w, 3].

    Every other pixel stays as it is. An inpainting model (model.inpainting) is told of the known
    part; any other is held to it, and paints twice. What is under the paint plays no part, unless
    the strength is below 1: then painting starts from it, as in image_to_image. Raises
    InputImageError.
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
            denoise = guided(denoise=with_known(generate.denoiser, known_part(clean, mask)))
        else:
            denoise = keep_known_region(guided(), clean, mask)
        levels = levels_from(strength, sampling.steps)
        amount = torch.where(
            mask.bool(), levels[0], strength
        )  # strength 1 starts from noise alone, at a level below 1
        noisy = (1 - amount) * clean + amount * generate.noise(seeds)
        latents = sample(sampling.solver, denoise, noisy, text, levels)
        return np.where(paint[None, :, :, None], generate.decode(latents), image[None])

    painted = solve((_continued(image, paint) if strength == 1 else image)[None], strength, seeds)
    if not generate.denoiser.config.inpainting:
        # Latents do not show what the mask's edge cuts off, the picture put together does: encode
        # it, and solve again.
        painted = solve(
            painted, min(strength, _AGAIN_FROM), [seed + _OTHER_NOISE for seed in seeds]
        )
    return painted


def _continued(image: NDArray[np.uint8], paint: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with the nearest known pixel in place of each to be painted: the encoder looks
    further than one latent, and is to see nothing there."""
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
