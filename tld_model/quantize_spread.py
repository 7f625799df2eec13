"""Quantization of standard deviations for storage, as uint8 on a logarithmic scale.

From 6e-6 to 7.4 the relative error is at most half a level, 2.8 %. A smaller deviation becomes 0, a
larger one 7.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST, _HIGHEST = -12.0, 2.0  # natural logarithms: 6e-6 to 7.4, of scaled latents of spread 1
_LEVEL = (_HIGHEST - _LOWEST) / 254


def quantize_spread(std: Tensor) -> Tensor:
    """Standard deviations -> uint8: 1 + (ln std - lowest) / level, rounded, and clamped to 0 and
    255. `dequantize_spread` reads 0 as a standard deviation of 0."""
    levels = 1 + (std.float().log() - _LOWEST) / _LEVEL
    return levels.round().clamp(0, 255).to(torch.uint8)


def dequantize_spread(stored: Tensor) -> Tensor:
    """uint8 -> standard deviations, float32, on the same device."""
    std = ((stored.float() - 1) * _LEVEL + _LOWEST).exp()
    return std.where(stored > 0, 0.0)
