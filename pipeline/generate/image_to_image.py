"""A picture and captions -> pictures like it: SDEdit (Meng et al., 2022). Knows nothing of files.

The picture is encoded, mixed with noise up to a level, the strength, and solved from there: a low
one keeps its details, a middle one its layout and colours, 1 nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data_catalog.images import Images
from pipeline.generate.generator import ImageGenerator
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings
from tld_model.sampler import HIGHEST_NOISE_LEVEL, noise_levels, sample

USUAL_STRENGTH = 0.7


class InputImageError(ValueError):
    """A picture, mask or strength that a model cannot work with; the message says what it takes."""

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
    """A picture [h, w, 3] drawn anew from a noise level in (0, 1], for each caption: uint8 [n, h,
    w, 3]. At strength 1 it is what the generator draws without a picture. Raises
    InputImageError."""
    check_image(generate, image)
    noise = generate.noise(range(len(captions)) if seeds is None else seeds)
    start = (1 - strength) * generate.encode(image[None]) + strength * noise
    levels = levels_from(strength, sampling.steps)
    text, denoise = generate.text(captions), generate.guided(sampling, negative)
    return generate.decode(sample(sampling.solver, denoise, start, text, levels))


def levels_from(strength: float, steps: int) -> list[float]:
    """The strength as a noise level, and those of so many steps that are below it. Raises
    InputImageError."""
    if not 0 < strength <= 1:
        raise InputImageError(f"the strength must be above 0 and at most 1, got {strength:g}")
    levels = noise_levels(steps)
    first = min(strength, max(HIGHEST_NOISE_LEVEL, levels[0]))
    return [first, *(level for level in levels[1:] if level < first)]


def edge_of(generate: ImageGenerator) -> int:
    """Height and width in pixels of what a model draws."""
    return generate.denoiser.config.latent_size * generate.codec.downscale


def check_image(
    generate: ImageGenerator, image: NDArray[np.uint8], paint: NDArray[np.bool_] | None = None
) -> None:
    """Raise InputImageError where the model does not draw pictures of this shape, or the mask is of
    another."""
    edge = edge_of(generate)
    if image.shape != (edge, edge, 3):
        raise InputImageError(
            f"this model takes RGB pictures [{edge}, {edge}, 3], got {list(image.shape)}"
        )
    if paint is not None and paint.shape != (edge, edge):
        raise InputImageError(
            f"the mask must be of the picture's size [{edge}, {edge}], got {list(paint.shape)}"
        )
