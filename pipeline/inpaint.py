"""A picture, what of it is to be painted, and captions -> pictures. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.sample import Generator
from tld_model.inpainting import known_part, latent_mask, with_known
from tld_model.sampler import guided, noise_levels, sample


class InpaintingError(ValueError):
    """A model, picture or mask that cannot be painted with."""


@torch.no_grad()
def inpaint(
    generate: Generator,
    captions: Sequence[str],
    picture: NDArray[np.uint8],
    paint: NDArray[np.bool_],
    steps: int = 20,
    guidance: float = 4.5,
    seed: int = 0,
) -> NDArray[np.uint8]:
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

    clean = generate.codec.encode(torch.from_numpy(picture).permute(2, 0, 1)[None])
    mask = latent_mask(torch.from_numpy(paint), config.latent_size).to(clean)
    known = known_part(clean, mask).repeat(len(captions), 1, 1, 1)
    noise = torch.randn((len(captions), *clean.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(clean)
    denoise = guided(with_known(generate.denoiser, known), guidance)
    latents = sample("dpmpp_2m", denoise, noise, generate.text_encoder(captions), noise_levels(steps))
    painted = generate.codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
    return np.where(paint[None, :, :, None], painted, picture[None])
