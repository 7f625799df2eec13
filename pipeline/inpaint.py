"""A picture, what of it is to be painted, and captions -> pictures. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.pictures import Pictures
from pipeline.sample import Generator
from tld_model.inpainting import known_part, latent_mask, with_known
from tld_model.sampler import noise_levels, sample
from tld_model.sampling import USUAL, Sampling


class InpaintingError(ValueError):
    """A model, picture or mask that cannot be painted with."""


@torch.no_grad()
def inpaint(
    generate: Generator,
    captions: Sequence[str],
    picture: NDArray[np.uint8],
    paint: NDArray[np.bool_],
    seeds: Sequence[int] | None = None,
    sampling: Sampling = USUAL,
) -> Pictures:
    """A picture [h, w, 3] whose pixels are painted where `paint` [h, w] is true, for each caption: uint8 [n, h, w, 3].

    Every other pixel stays as it is. For outpainting lay the picture on a larger canvas and paint the rest.
    Raises InpaintingError.
    """
    config = generate.denoiser.config
    if not config.inpainting:
        raise InpaintingError(
            "this model takes no picture: train one with model.inpainting=true (train.init_from helps)"
        )
    edge = config.latent_size * generate.codec.downscale
    if picture.shape != (edge, edge, 3) or paint.shape != (edge, edge):
        raise InpaintingError(
            f"this model paints RGB pictures [{edge}, {edge}, 3] with a mask [{edge}, {edge}], "
            f"got {list(picture.shape)} and {list(paint.shape)}"
        )

    clean = generate.encode(picture[None])
    mask = latent_mask(torch.from_numpy(paint), config.latent_size).to(clean)
    known = known_part(clean, mask).repeat(len(captions), 1, 1, 1)
    noise = generate.noise(range(len(captions)) if seeds is None else seeds)
    denoise = generate.guided(sampling, denoise=with_known(generate.denoiser, known))
    latents = sample(sampling.solver, denoise, noise, generate.text_encoder(captions), noise_levels(sampling.steps))
    return np.where(paint[None, :, :, None], generate.decode(latents), picture[None])
