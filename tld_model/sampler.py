"""Samplers: classifier-free guidance and ODE solvers that lead from noise to a clean latent.

All solvers follow one ordinary differential equation along the path x_s = (1 - s) x0 + s noise at
falling noise levels s: dx/ds = (x - D(x, s)) / s, where D is the predicted clean latent. The
prediction at the last level is the result, which equals one Euler step to 0. The model is any
callable.

b batch   c channels   z latent size   t text width   l text tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model.config import SolverName

# (noisy [b, c, z, z], noise levels [b], text [b, t] or [b, l, t]) -> clean [b, c, z, z]. The noise
# levels are on the CPU, so that reading one does not wait for a GPU.
DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]
# (noisy [b, c, z, z], the noise level of all) -> clean [b, c, z, z]
PredictFn = Callable[[Tensor, float], Tensor]
Solver = Callable[[PredictFn, Tensor, Sequence[float]], Tensor]
# At 1 there is no signal, and the log of the signal-to-noise ratio is infinite.
HIGHEST_NOISE_LEVEL = 0.99


def noise_levels(steps: int) -> list[float]:
    """`steps` falling noise levels 1 - i/steps. The first is lowered to 0.99, or by half a step if
    there are so many steps that the second level would come near 0.99."""
    if steps < 1:
        raise ValueError(f"sampling takes at least 1 step, got {steps}")
    first = HIGHEST_NOISE_LEVEL if steps < 100 else 1 - 0.5 / steps
    return [first, *(1 - i / steps for i in range(1, steps))]


def guided(
    denoise: DenoiseFn,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    negative: Tensor | None = None,
) -> DenoiseFn:
    """Classifier-free guidance (Ho and Salimans, 2022, eq. 6) on the predicted clean latent.

    At noise levels in (low, high] of the interval (Kynkäänniemi et al., 2024) the result is
    unconditional + scale * (conditional - unconditional), with both halves in one batch. Outside
    the interval, and everywhere at scale 1, the model runs on the conditional half only. All rows
    of a batch must be at the same level. A negative text [1, t] or [1, l, t] replaces the empty
    condition, so that guidance leads away from it.
    """
    if scale == 1:
        return denoise
    low, high = interval

    def denoise_guided(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        if interval != (0.0, 1.0) and not bool(((low < sigma) & (sigma <= high)).all()):
            return denoise(noisy, sigma, text)
        both = denoise(
            torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), _with_opposite(text, negative)
        )
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise_guided


def _with_opposite(text: Tensor, negative: Tensor | None) -> Tensor:
    """Texts [b, t] or [b, l, t], followed by the text that guidance leads away from for each:
    [2b, t] or [2b, l, t]. The text with fewer tokens is padded with zeros."""
    if negative is None:
        return torch.cat([text, torch.zeros_like(text)])
    if text.dim() == 3:
        length = max(text.shape[1], negative.shape[1])
        text, negative = (F.pad(x, (0, 0, 0, length - x.shape[1])) for x in (text, negative))
    return torch.cat([text, negative.expand_as(text)])


def counted(denoise: DenoiseFn, after_call: Callable[[], None]) -> DenoiseFn:
    """The same, with a call after each of its calls."""

    def denoise_and_count(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        clean = denoise(noisy, sigma, text)
        after_call()
        return clean

    return denoise_and_count


@torch.no_grad()
def sample(
    solver: SolverName, denoise: DenoiseFn, noise: Tensor, text: Tensor, levels: Sequence[float]
) -> Tensor:
    """Sample clean latents [b, c, z, z] from unit noise [b, c, z, z] and text [b, t] or [b, l, t]
    at falling noise levels."""

    def predict(noisy: Tensor, level: float) -> Tensor:
        return denoise(noisy, torch.full((len(noisy),), level), text)

    return SOLVERS[solver](predict, noise, levels)


def solve_first_order(predict: PredictFn, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """DDIM (Song et al., 2021, eq. 12 without noise), which on this path is Euler's method: the
    slope (x - D) / s is the predicted noise minus the predicted clean latent, and a step along it
    to another level mixes these two in the proportions of that level."""
    x = noise
    for level, following in pairwise(levels):
        x = _step(x, predict(x, level), level, following)
    return predict(x, levels[-1])


def solve_heun(predict: PredictFn, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """Heun's method (Karras et al., 2022, algorithm 1), which uses the mean of the slopes at both
    ends of a step. All steps but the last call the model twice."""
    x = noise
    for level, following in pairwise(levels):
        slope = (x - predict(x, level)) / level
        ahead = x + (following - level) * slope
        slope_ahead = (ahead - predict(ahead, following)) / following
        x = x + (following - level) * (slope + slope_ahead) / 2
    return predict(x, levels[-1])


def solve_dpmpp_2m(predict: PredictFn, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022b, algorithm 2): second order with one prediction per step,
    by extrapolation from the previous prediction in lambda, the log of signal over noise."""
    x = noise
    older: Tensor | None = None
    last_h = 0.0
    for level, following in pairwise(levels):
        clean = predict(x, level)
        h = _log_snr(following) - _log_snr(level)
        estimate = clean if older is None else clean + (clean - older) * h / (2 * last_h)
        x = _step(x, estimate, level, following)
        older, last_h = clean, h
    return predict(x, levels[-1])


def solve_unipc(predict: PredictFn, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """UniPC (Zhao et al., 2023, algorithms 1 and 2) of third order with one prediction per step: a
    step extrapolates from the last two predictions, and is repeated once the prediction at its end
    is known, by interpolation between three. Their integrals are exact, as in its UniPC_v."""
    x, before = noise, noise
    nodes: list[tuple[float, Tensor]] = []  # the last predictions with their lambda, newest first
    for number, (level, following) in enumerate(pairwise(levels)):
        clean = predict(x, level)
        nodes = [(_log_snr(level), clean), *nodes[:2]]
        if number:
            x = _exponential_step(before, levels[number - 1], level, nodes)
        before, x = x, _exponential_step(x, level, following, nodes[:2])
    return predict(x, levels[-1])


# Euler and DDIM are two names for the same method on this path; users look for either.
SOLVERS: dict[SolverName, Solver] = {
    "dpmpp_2m": solve_dpmpp_2m,
    "unipc": solve_unipc,
    "heun": solve_heun,
    "euler": solve_first_order,
    "ddim": solve_first_order,
}


def _step(x: Tensor, clean: Tensor, level: float, following: float) -> Tensor:
    """Move x along the straight line to a predicted clean latent, down to the following level."""
    ratio = following / level
    return ratio * x + (1 - ratio) * clean


def _exponential_step(
    x: Tensor, level: float, following: float, nodes: Sequence[tuple[float, Tensor]]
) -> Tensor:
    """Move x down to the following level by the exact solution of the equation, if the predicted
    clean latent is the polynomial in lambda, the log of signal over noise, through these nodes
    (Lu et al., 2022b, eq. 8)."""
    start = _log_snr(level)
    h = _log_snr(following) - start
    moments = [math.expm1(h)]  # integrals of exp(u) u^k from 0 to h
    for k in range(1, len(nodes)):
        moments.append(math.exp(h) * h**k - k * moments[-1])
    x = following / level * x
    for where, clean in nodes:
        # The polynomial that is 1 at this node and 0 at the others, by its coefficients in u.
        basis = [1.0]
        for other, _ in nodes:
            if other != where:
                shifted = zip([0.0, *basis], [*basis, 0.0], strict=True)
                basis = [
                    (lower - (other - start) * same) / (where - other) for lower, same in shifted
                ]
        integral = sum(factor * moment for factor, moment in zip(basis, moments, strict=True))
        x = x + following * math.exp(start) * integral * clean
    return x


def _log_snr(level: float) -> float:
    return math.log((1 - level) / level)
