"""How noise is mixed into a latent, how noise levels are drawn, and the loss. Knows no network.

The path is that of rectified flow (Liu et al., 2023): x_sigma = (1 - sigma) x0 + sigma noise, sigma in [0, 1].
b batch   c channels   z latent size
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mix clean latents and unit noise [b, c, z, z] at noise levels [b]."""
    s = sigma[:, None, None, None]
    return (1 - s) * clean + s * noise


def draw_noise_levels(count: int, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """`count` noise levels from Beta(alpha, beta), stratified: one from each of `count` equal slices of
    probability, shuffled, which covers the range evenly in every batch (Kingma et al., 2021, app. I.1).

    The quantile is found by linear interpolation of the distribution function on a fixed grid, since
    torch has no inverse of it; all on the CPU, so that a seed gives the same levels on every device.
    """
    grid = torch.linspace(0, 1, 2049, dtype=torch.float64)
    middle = (grid[1:] + grid[:-1]) / 2
    density = middle ** (alpha - 1) * (1 - middle) ** (beta - 1)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0)])
    cumulative = cumulative / cumulative[-1]

    uniform = torch.rand(count, dtype=torch.float64, generator=generator)
    slices = (torch.randperm(count, generator=generator) + uniform) / count
    right = torch.searchsorted(cumulative, slices).clamp(1, len(grid) - 1)
    low, high = cumulative[right - 1], cumulative[right]
    fraction = ((slices - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return torch.lerp(grid[right - 1], grid[right], fraction).float().clamp(1e-4, 1.0)


def drop_condition(text: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """A copy of text embeddings, pooled [b, t] or token-level [b, l, t], in which each row is zero with this
    probability, for classifier-free guidance (Ho and Salimans, 2022)."""
    keep = torch.rand(len(text), generator=generator) >= probability
    return text * keep.view(-1, *[1] * (text.ndim - 1)).to(text)


def denoising_loss(predicted: Tensor, clean: Tensor, sigma: Tensor, max_weight: float) -> Tensor:
    """Weighted squared error of x0, one number per latent [b].

    The weight is 1/sigma^2, which makes it the squared error of the velocity, up to `max_weight`;
    max_weight = 1 is the plain squared error.
    """
    error = (predicted.float() - clean.float()).square().mean(dim=(1, 2, 3))
    weight = sigma.clamp_min(1e-4).pow(-2).clamp_max(max_weight)
    return error * weight
