"""Inpainting: masks for training, conditioning of a trained inpainting model, and a training-free
method for any denoiser.

A mask is 1 where the latent is known. It has its own input channel because a blanked latent is 0,
which is an ordinary value of a latent too: c noisy channels, c known channels and the mask are 2c+1
inputs, as in Stable Diffusion's inpainting model.

b batch   c channels   z latent size
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model.sampler import DenoiseFn

_NOTHING_KNOWN = 0.25  # share of masks with nothing known: the model keeps learning text to image
_HOLE = 0.375  # share of masks with an unknown hole; the rest have unknown borders


def sample_masks(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Sample masks [b, 1, z, z] on the CPU: an unknown rectangular hole (inpainting), unknown
    borders at some of the four sides (outpainting), or nothing known at all."""
    kind = torch.rand(count, generator=generator)[:, None, None]
    ends = (torch.rand(count, 2, 2, generator=generator) * size).sort(dim=-1).values
    borders = torch.rand(count, 2, 2, generator=generator) * size / 2
    borders = borders * (torch.rand(count, 2, 2, generator=generator) < 0.5)

    hole = _rectangle(ends[..., 0].floor(), ends[..., 1].ceil(), size)
    middle = _rectangle(borders[..., 0].floor(), size - borders[..., 1].floor(), size)
    known = torch.where(kind < _NOTHING_KNOWN + _HOLE, ~hole, middle) & (kind >= _NOTHING_KNOWN)
    return known[:, None].float()


def _rectangle(first: Tensor, end: Tensor, size: int) -> Tensor:
    """Masks bool [b, z, z] of the rows and columns from `first` [b, 2] up to `end` [b, 2]."""
    place = torch.arange(size)
    inside = (place >= first[..., None]) & (place < end[..., None])  # [b, 2, z]
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def known_part(clean: Tensor, mask: Tensor) -> Tensor:
    """The input of an inpainting denoiser [b, c+1, z, z]: clean latents [b, c, z, z], blanked where
    the mask [b, 1, z, z] is 0, and the mask."""
    return torch.cat([clean * mask, mask.to(clean)], dim=1)


def latent_mask(paint: Tensor, size: int) -> Tensor:
    """Pixels to repaint, bool [h, w] -> mask [1, 1, z, z]. A latent is known if none of its pixels
    is repainted."""
    painted: Tensor = F.adaptive_max_pool2d(paint[None, None].float(), size)
    return 1 - painted


def with_known(denoiser: Callable[..., Tensor], known: Tensor) -> DenoiseFn:
    """An inpainting denoiser with its known parts [b, c+1, z, z] bound to it. They are repeated if
    guidance repeats the batch."""

    def denoise(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        clean: Tensor = denoiser(
            noisy, sigma, text, known.repeat(len(noisy) // len(known), 1, 1, 1)
        )
        return clean

    return denoise


def keep_known_region(denoise: DenoiseFn, clean: Tensor, mask: Tensor) -> DenoiseFn:
    """Wrap any denoiser so that it predicts the given clean latents [b, c, z, z] where the mask
    [b, 1, z, z] is 1.

    RePaint (Lugmayr et al., 2022, eq. 8) and blended diffusion (Avrahami et al., 2022, algorithm 1)
    put the known part, noised to each level, into x before each step. On the straight path with a
    single noise, this wrapper does the same. Let x_s = (1 - s) x0 + s noise where x0 is known, at
    the first level. With x0 as the prediction, the slope (x_s - x0) / s = noise - x0 is the same at
    every level, so a step of any solver of any order is exact there: x_r = (1 - r) x0 + r noise.
    The last prediction is the result, and its known part is x0 itself.
    """

    def denoise_unknown(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        return torch.where(mask.bool(), clean, denoise(noisy, sigma, text))

    return denoise_unknown
