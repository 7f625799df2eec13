"""Image-to-image generation by SDEdit (Meng et al., 2022).

The image is encoded, mixed with noise up to a noise level, the strength, and denoised from there. A
low strength keeps the image's details, a middle one its layout and colours, and 1 nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data_catalog.images import Images
from pipeline.generate.generator import ImageGenerator
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings
from tld_model.sampler import HIGHEST_NOISE_LEVEL, noise_levels

USUAL_STRENGTH = 0.7


class InputImageError(ValueError):
    """The model cannot use this image, mask or strength; the message says what it accepts."""

    exit_code = 2


@torch.no_grad()
def image_to_image(
    generate: ImageGenerator,
    captions: Sequence[str],
    image: NDArray[np.uint8],
    strength: float = USUAL_STRENGTH,
    seeds: Sequence[int] | None = None,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
) -> Images:
    """Generate a variation of an image [h, w, 3] for each caption: uint8 [n, h, w, 3].

    `strength` is the noise level to start from, in (0, 1]; at 1 the result is what the generator
    returns without an image. Raises InputImageError if the image or the strength is not usable.
    """
    check_image(generate, image)
    noise = generate.noise(range(len(captions)) if seeds is None else seeds)
    start = (1 - strength) * generate.encode(image[None]) + strength * noise
    levels = levels_from(strength, sampling.steps)
    text, denoise = generate.text(captions), generate.guided(sampling, negative)
    latents = generate.inference.sample(sampling.solver, denoise, start, text, levels)
    return generate.decode(latents)


def levels_from(strength: float, steps: int) -> list[float]:
    """Noise levels that start at the strength and continue with those of `steps` steps below it.

    Raises InputImageError if the strength is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise InputImageError(f"the strength must be above 0 and at most 1, got {strength:g}")
    levels = noise_levels(steps)
    first = min(strength, max(HIGHEST_NOISE_LEVEL, levels[0]))
    return [first, *(level for level in levels[1:] if level < first)]


def edge_of(generate: ImageGenerator) -> int:
    """Height and width of the model's images, in pixels."""
    return generate.denoiser.config.latent_size * generate.codec.downscale


def check_image(
    generate: ImageGenerator, image: NDArray[np.uint8], paint: NDArray[np.bool_] | None = None
) -> None:
    """Raise InputImageError if the image or the mask does not have the size of the model."""
    edge = edge_of(generate)
    if image.shape != (edge, edge, 3):
        raise InputImageError(
            f"this model takes RGB images [{edge}, {edge}, 3], got {list(image.shape)}"
        )
    if paint is not None and paint.shape != (edge, edge):
        raise InputImageError(
            f"the mask must have the image's size [{edge}, {edge}], got {list(paint.shape)}"
        )
