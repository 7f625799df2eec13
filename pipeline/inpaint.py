"""A picture, what of it is to be painted, and captions -> pictures. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.image_to_image import check_picture, levels_from
from pipeline.pictures import Pictures
from pipeline.sample import Generator
from tld_model.inpainting import held_to, known_part, latent_mask, with_known
from tld_model.sampler import sample
from tld_model.sampling import USUAL, Sampling


@torch.no_grad()
def inpaint(
    generate: Generator,
    captions: Sequence[str],
    picture: NDArray[np.uint8],
    paint: NDArray[np.bool_],
    seeds: Sequence[int] | None = None,
    sampling: Sampling = USUAL,
    negative: str = "",
    strength: float = 1,
) -> Pictures:
    """A picture [h, w, 3] whose pixels are painted where `paint` [h, w] is true, for each caption: uint8 [n, h, w, 3].

    Every other pixel stays as it is. An inpainting model (model.inpainting) is told of the known part; any model is
    held to it. What is under the paint plays no part, unless the strength is below 1: then painting
    starts from it, as in image_to_image. Raises PictureError.
    """
    check_picture(generate, picture, paint)
    levels = levels_from(strength, sampling.steps)
    clean = generate.encode((_continued(picture, paint) if strength == 1 else picture)[None])
    mask = latent_mask(torch.from_numpy(paint), generate.denoiser.config.latent_size).to(clean)

    denoise = None
    if generate.denoiser.config.inpainting:
        denoise = with_known(generate.denoiser, known_part(clean, mask).repeat(len(captions), 1, 1, 1))
    denoise = held_to(generate.guided(sampling, negative, denoise), clean, mask)
    noise = generate.noise(range(len(captions)) if seeds is None else seeds)
    amount = torch.where(mask.bool(), levels[0], strength)  # strength 1 starts from noise alone, at a level below 1
    start = (1 - amount) * clean + amount * noise
    latents = sample(sampling.solver, denoise, start, generate.text_encoder(captions), levels)
    return np.where(paint[None, :, :, None], generate.decode(latents), picture[None])


def _continued(picture: NDArray[np.uint8], paint: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with the nearest known pixel in place of each to be painted: the encoder looks further than one
    latent, and is to see nothing there."""
    if paint.all():
        return picture
    source = paint.astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(source, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    pixel_of = np.zeros((nearest.max() + 1, 3), np.uint8)
    pixel_of[nearest[~paint]] = picture[~paint]
    continued: NDArray[np.uint8] = pixel_of[nearest]
    return continued
