"""Latents <-> uint8. Linear, with rounding: |x - dequantize(quantize(x))| <= scale/2 within the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ZERO_POINT = 128  # the uint8 that stands for 0; 1..255 are used


@dataclass(frozen=True, slots=True)
class Quantization:
    """uint8 = round(latent / scale) + ZERO_POINT for latents in [-clip, clip]."""

    clip: float

    @property
    def scale(self) -> float:
        """Width of one level, in units of the scaled latent."""
        return self.clip / 127


def quantize(latents: Tensor, quantization: Quantization) -> Tensor:
    """Scaled latents, any shape -> uint8; what lies beyond the clip becomes the clip."""
    levels = (latents.float() / quantization.scale).round().clamp(-127, 127)
    return (levels + ZERO_POINT).to(torch.uint8)


def dequantize(levels: Tensor, quantization: Quantization) -> Tensor:
    """uint8, any shape -> scaled latents, float32"""
    return (levels.float() - ZERO_POINT) * quantization.scale


def clipped_fraction(latents: Tensor, quantization: Quantization) -> Tensor:
    """Fraction of each latent's values beyond the clip: [b, ...] -> [b]"""
    return (latents.abs() > quantization.clip).flatten(1).float().mean(dim=1)
