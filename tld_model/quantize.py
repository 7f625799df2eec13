"""Quantization of latents for storage, as uint8 or float16.

uint8 is linear with rounding: |x - dequantize(quantize(x))| <= scale/2 within the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tld_model.config import StoredDtype
from tld_model.latent_scaling import ByChannel, by_channel

ZERO_POINT = 128  # the uint8 that stands for 0; 1..255 are used
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True)
class Quantization:
    """uint8 = round(latent / scale) + ZERO_POINT for latents in [-clip, clip]. float16 is stored
    unchanged."""

    clip: ByChannel  # of scaled latents: one for all channels, or one per channel
    dtype: StoredDtype = "uint8"

    @property
    def scale(self) -> ByChannel:
        """The width of one level in units of the scaled latent: one for all channels, or one per
        channel."""
        return (
            tuple(clip / 127 for clip in self.clip)
            if isinstance(self.clip, tuple)
            else self.clip / 127
        )

    @property
    def bound(self) -> float:
        """The largest error of a value within the clip, in any channel."""
        clip = max(self.clip) if isinstance(self.clip, tuple) else self.clip
        return clip / 254 if self.dtype == "uint8" else clip * 2**-11


def quantize(latents: Tensor, quantization: Quantization) -> Tensor:
    """Scaled latents [..., c, z, z] -> uint8 or float16. Values beyond the range are clipped."""
    if quantization.dtype == "float16":
        return latents.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
    levels = (latents.float() / by_channel(quantization.scale, latents)).round().clamp(-127, 127)
    return (levels + ZERO_POINT).to(torch.uint8)


def dequantize(stored: Tensor, quantization: Quantization) -> Tensor:
    """uint8 or float16 [..., c, z, z] -> scaled latents, float32, on the same device."""
    if quantization.dtype == "float16":
        return stored.float()
    return (stored.float() - ZERO_POINT) * by_channel(quantization.scale, stored)


def clipped_fraction(latents: Tensor, quantization: Quantization) -> Tensor:
    """The fraction of each latent's values beyond the range: [b, c, z, z] -> [b]."""
    limit = (
        _LARGEST_HALF if quantization.dtype == "float16" else by_channel(quantization.clip, latents)
    )
    return (latents.abs() > limit).flatten(1).float().mean(dim=1)
