"""Guidance and DPM-Solver++(2M): from noise to a clean latent. Knows the model only as a callable.

b batch   c channels   z latent size   t text width
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (noisy [b, c, z, z], noise levels [b], text [b, t]) -> clean [b, c, z, z]
DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]
HIGHEST_NOISE_LEVEL = 0.99  # at 1 the signal is gone and the log of the signal-to-noise ratio infinite


def noise_levels(steps: int) -> list[float]:
    """`steps` falling noise levels, 1 - i/steps, of which the first is kept below 1: at 0.99, or half a step down
    where steps are so small that the second comes near that."""
    if steps < 1:
        raise ValueError(f"sampling takes at least 1 step, got {steps}")
    first = HIGHEST_NOISE_LEVEL if steps < 100 else 1 - 0.5 / steps
    return [first, *(1 - i / steps for i in range(1, steps))]


def guided(denoise: DenoiseFn, scale: float) -> DenoiseFn:
    """Classifier-free guidance (Ho and Salimans, 2022, eq. 6) on the predicted clean latent:
    unconditional + scale * (conditional - unconditional). At scale 1 the model runs once, not twice."""
    if scale == 1:
        return denoise

    def denoise_guided(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        both = denoise(torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), torch.cat([text, torch.zeros_like(text)]))
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise_guided


@torch.no_grad()
def sample_dpmpp_2m(denoise: DenoiseFn, noise: Tensor, text: Tensor, levels: list[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022b, algorithm 2) in data prediction, from unit noise
    [b, c, z, z] to clean latents. The prediction at the last level is the result."""
    x = noise
    older: Tensor | None = None
    for i, sigma in enumerate(levels):
        clean = denoise(x, torch.full((len(x),), sigma, device=x.device), text)
        if i == len(levels) - 1:
            return clean

        # lambda: log of signal over noise; h: the step in it
        following = levels[i + 1]
        h = _log_snr(following) - _log_snr(sigma)
        estimate = clean
        if older is not None:
            ratio = (_log_snr(sigma) - _log_snr(levels[i - 1])) / h
            estimate = clean + (clean - older) / (2 * ratio)
        older = clean
        x = (following / sigma) * x - (1 - following) * torch.expm1(torch.tensor(-h)).item() * estimate
    raise AssertionError("unreachable: the last level returns")


def _log_snr(sigma: float) -> float:
    s = torch.tensor(sigma, dtype=torch.float64)
    return float(torch.log((1 - s) / s))
