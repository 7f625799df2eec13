"""Pictures of which a part is known: masks to train on, and the denoiser with the known part tied to it.

A mask is 1 where the latent is known. It has a channel of its own, because a blanked latent is 0, which is an
ordinary value of a latent too: c noisy channels, c known ones and the mask are 2c+1 inputs, as in Stable Diffusion's
inpainting model.
b batch   c channels   z latent size
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model.denoiser import Denoiser
from tld_model.sampler import DenoiseFn

_NOTHING_KNOWN = 0.25  # share of masks: the model goes on to learn text to image
_HOLE = 0.375  # share of masks with a hole; the rest lack a border


def draw_masks(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random masks [b, 1, z, z], on the CPU: a rectangular hole to paint in, a border to paint on at some of the four
    sides, or nothing known at all."""
    kind = torch.rand(count, generator=generator)[:, None, None]
    ends = (torch.rand(count, 2, 2, generator=generator) * size).sort(dim=-1).values
    borders = torch.rand(count, 2, 2, generator=generator) * size / 2
    borders = borders * (torch.rand(count, 2, 2, generator=generator) < 0.5)

    hole = _rectangle(ends[..., 0].floor(), ends[..., 1].ceil(), size)
    middle = _rectangle(borders[..., 0].floor(), size - borders[..., 1].floor(), size)
    known = torch.where(kind < _NOTHING_KNOWN + _HOLE, ~hole, middle) & (kind >= _NOTHING_KNOWN)
    return known[:, None].float()


def _rectangle(first: Tensor, end: Tensor, size: int) -> Tensor:
    """bool [b, z, z]: rows and columns from `first` [b, 2] up to `end` [b, 2]"""
    place = torch.arange(size)
    inside = (place >= first[..., None]) & (place < end[..., None])  # [b, 2, z]
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def known_part(clean: Tensor, mask: Tensor) -> Tensor:
    """What an inpainting denoiser is told: clean latents [b, c, z, z] blanked where the mask [b, 1, z, z] is 0, and
    the mask: [b, c+1, z, z]"""
    return torch.cat([clean * mask, mask.to(clean)], dim=1)


def latent_mask(paint: Tensor, size: int) -> Tensor:
    """Pixels to paint, bool [h, w] -> mask [1, 1, z, z]: a latent is known where none of its pixels is painted."""
    painted: Tensor = F.adaptive_max_pool2d(paint[None, None].float(), size)
    return 1 - painted


def with_known(denoiser: Denoiser, known: Tensor) -> DenoiseFn:
    """The denoiser told of known parts [b, c+1, z, z]; guidance may ask for the batch several times over."""

    def denoise(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        clean: Tensor = denoiser(noisy, sigma, text, known.repeat(len(noisy) // len(known), 1, 1, 1))
        return clean

    return denoise
