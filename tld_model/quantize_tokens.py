"""Quantization of token states for storage, as uint8 with a scale for each token.

The scale follows from the token alone, so a stored token means the same in every shard. Its error
is at most half of the scale, a 254th of the token's largest value.

t width of a token
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tld_model.quantize import ZERO_POINT

_LEVELS = 127


@dataclass(frozen=True, slots=True)
class StoredStates:
    """Token states as they are stored: state = (level - ZERO_POINT) * scale, or float16 states
    without a scale."""

    states: Tensor  # uint8 or float16 [..., t]
    scale: Tensor | None = None  # float16 [...]


def quantize_tokens(states: Tensor) -> StoredStates:
    """Token states [..., t] -> uint8. A token of zeros has the scale 0. If a token is not finite,
    neither is its scale."""
    widest = states.float().abs().amax(dim=-1)  # [...]
    scale = (widest / _LEVELS).half()
    # A scale that was rounded down would clip the largest value.
    scale = torch.where(scale.float() * _LEVELS < widest, _next_larger(scale), scale)
    divisor = torch.where(scale == 0, 1, scale.float())[..., None]  # [..., 1]
    levels = (states.float() / divisor).round().clamp(-_LEVELS, _LEVELS)
    return StoredStates((levels + ZERO_POINT).to(torch.uint8), scale)


def dequantize_tokens(stored: StoredStates) -> Tensor:
    """Stored token states [..., t] -> float32, on the same device."""
    if stored.scale is None:
        return stored.states.float()
    return (stored.states.float() - ZERO_POINT) * stored.scale.float()[..., None]


def _next_larger(half: Tensor) -> Tensor:
    """The next larger float16 of each that is not negative: its bits, as an integer, plus one."""
    return (half.view(torch.int16) + 1).view(torch.float16)
