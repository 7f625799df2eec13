"""Scaling of latents: by one number or by one per channel, and as patches.

b batch   c channels   h, w height and width   p side of a patch
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ByChannel = float | tuple[float, ...]  # one number for all channels of a latent, or one for each


def by_channel(values: float | Sequence[float], like: Tensor) -> Tensor | float:
    """A value that broadcasts against latents [..., c, h, w], on their device."""
    if isinstance(values, Sequence):
        column = torch.tensor(values).view(-1, 1, 1)
        return column.to(like.device, non_blocking=True)  # waits for no GPU
    return values


def scale_latents(
    raw: Tensor, factor: float | Sequence[float], shift: float | Sequence[float]
) -> Tensor:
    """(raw - shift) * factor, of latents [b, c, h, w]."""
    return (raw - by_channel(shift, raw)) * by_channel(factor, raw)


def unscale_latents(
    scaled: Tensor, factor: float | Sequence[float], shift: float | Sequence[float]
) -> Tensor:
    """scaled / factor + shift, the inverse of `scale_latents`."""
    return scaled / by_channel(factor, scaled) + by_channel(shift, scaled)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """Latents [b, c, h p, w p] -> [b, c p p, h, w]: the values of a patch become channels, in the
    order of `Flux2Pipeline._patchify_latents` of diffusers."""
    return torch.nn.functional.pixel_unshuffle(latents, patch)


def unpatchify(latents: Tensor, patch: int) -> Tensor:
    """[b, c p p, h, w] -> [b, c, h p, w p], the inverse of `patchify`."""
    return torch.nn.functional.pixel_shuffle(latents, patch)
