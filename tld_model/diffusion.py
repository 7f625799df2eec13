"""The diffusion process in training: the noise path, the distribution of noise levels, the loss.

The path is that of rectified flow (Liu et al., 2023): x_sigma = (1 - sigma) x0 + sigma noise with
sigma in [0, 1]. Its velocity is v = noise - x0. Errors of x0 and of v are equal up to scale:
x0' - x0 = sigma (v - v').

b batch   c channels   z latent size
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Quantile = Callable[[Tensor], Tensor]  # probabilities [b] float64 -> noise levels [b] float64
LossWeight = Literal["velocity", "snr"]
_LOWEST_NOISE_LEVEL = 1e-4


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mix clean latents with unit noise [b, c, z, z] at noise levels [b]."""
    s = sigma[:, None, None, None]
    return (1 - s) * clean + s * noise


def sample_noise_levels(
    count: int, quantile: Quantile, generator: torch.Generator, shift: float = 1
) -> Tensor:
    """Sample `count` noise levels from a distribution, stratified: one from each of `count` equal
    slices of probability, in random order, so that every batch covers the range evenly (Kingma et
    al., 2021, app. I.1). Everything runs on the CPU, so that a seed gives the same levels on every
    device.

    `shift` s > 1 moves the levels towards noise, as larger latents need: s sigma / (1 + (s - 1)
    sigma) (Esser et al., 2024, eq. 23, where s is the square root of the ratio of pixels).
    """
    uniform = torch.rand(count, dtype=torch.float64, generator=generator)
    slices = (torch.randperm(count, generator=generator) + uniform) / count
    sigma = quantile(slices)
    shifted = shift * sigma / (1 + (shift - 1) * sigma)
    return shifted.float().clamp(_LOWEST_NOISE_LEVEL, 1.0)


def beta_quantile(alpha: float, beta: float) -> Quantile:
    """The quantile function of Beta(alpha, beta), by linear interpolation of the cumulative
    distribution function on a fixed grid, because torch has no inverse of it."""
    grid = torch.linspace(0, 1, 2049, dtype=torch.float64)
    middle = (grid[1:] + grid[:-1]) / 2
    density = middle ** (alpha - 1) * (1 - middle) ** (beta - 1)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0)])
    cumulative = cumulative / cumulative[-1]

    def quantile(probability: Tensor) -> Tensor:
        right = torch.searchsorted(cumulative, probability).clamp(1, len(grid) - 1)
        low, high = cumulative[right - 1], cumulative[right]
        fraction = ((probability - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        return torch.lerp(grid[right - 1], grid[right], fraction)

    return quantile


def logit_normal_quantile(location: float, scale: float) -> Quantile:
    """The quantile function of the logistic function of Normal(location, scale) (Esser et al.,
    2024, section 3.1)."""
    return lambda probability: torch.sigmoid(location + scale * torch.special.ndtri(probability))


def sample_dropped(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Sample which of `count` captions are dropped, bool [b], for classifier-free guidance (Ho and
    Salimans, 2022)."""
    return torch.rand(count, generator=generator) < probability


def drop_condition(text: Tensor, dropped: Tensor) -> Tensor:
    """A copy of text embeddings, pooled [b, t] or token-level [b, l, t], with zeros for the dropped
    ones [b]."""
    return text * (~dropped).view(-1, *[1] * (text.ndim - 1)).to(text)


def denoising_loss(
    predicted: Tensor,
    clean: Tensor,
    sigma: Tensor,
    max_weight: float,
    weight: LossWeight = "velocity",
) -> Tensor:
    """The weighted squared error of x0, one number per latent [b].

    The weight, at most `max_weight`, turns it into the squared error of another quantity:

    velocity  1/sigma^2. max_weight = 1 gives the plain squared error of x0, no bound that of v.
    snr       ((1 - sigma)/sigma)^2, which gives the squared error of the noise. max_weight = gamma
              gives min-SNR-gamma (Hang et al., 2023).
    """
    error = (predicted.float() - clean.float()).square().mean(dim=(1, 2, 3))
    s = sigma.clamp_min(_LOWEST_NOISE_LEVEL)
    full = s.pow(-2) if weight == "velocity" else ((1 - s) / s).square()
    return error * full.clamp_max(max_weight)


def clean_by_neighbour(noisy: Tensor, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The x0 that noisy latents [b, c, z, z] would have if their velocity were that of their
    neighbour in the batch. Contrastive flow matching (Stoica et al., 2025) keeps predictions away
    from it.

    Neighbours are pairs (0 and 1, 2 and 3, …), so that any even slice of a batch contains both of
    each pair. The order of a batch is random already.
    """
    other_velocity = swap_neighbours(noise - clean)
    return noisy - sigma[:, None, None, None] * other_velocity


def swap_neighbours(rows: Tensor) -> Tensor:
    """Swap rows 0 and 1, 2 and 3, and so on. The number of rows must be even."""
    pairs: Tensor = rows.unflatten(0, (-1, 2))
    return pairs.flip(1).flatten(0, 1)
