"""Noise for samples from the VAE's posterior, which depends on the key of a pair alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def noise_of(keys: Iterable[str], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of this shape for each of b keys, whatever batch they are in."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(_seed_of(key))) for key in keys]
    )


def _seed_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1
