import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from torch import Tensor

from tld_model.config import SolverName
from tld_model.sampler import SOLVERS, _exponential_step, guided, noise_levels, sample

ALL: tuple[SolverName, ...] = get_args(SolverName)
STEPS = 12


def denoise(x: Tensor, sigma: Tensor, _: Tensor) -> Tensor:
    return torch.tanh(x * (1 - sigma[:, None, None, None])) * 0.7


def velocity(x: Tensor, sigma: float) -> Tensor:
    return (x - denoise(x, torch.full((len(x),), sigma), x)) / sigma


@pytest.mark.parametrize("solver", ALL)
def test_a_denoiser_that_knows_the_truth_samples_the_truth(solver: SolverName) -> None:
    truth = torch.randn(2, 4, 8, 8)
    noise, text = torch.randn(2, 4, 8, 8), torch.zeros(2, 3)
    for steps in (1, 2, 7, 20, 99, 100, 101, 250):
        torch.testing.assert_close(
            sample(solver, lambda *_: truth, noise, text, noise_levels(steps)), truth
        )


def ours(solver: SolverName, noise: Tensor) -> Tensor:
    return sample(solver, denoise, noise, torch.zeros(2, 1), noise_levels(STEPS))


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_dpmpp_2m_agrees_with_diffusers(noise: Tensor) -> None:
    levels = noise_levels(STEPS)
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        algorithm_type="dpmsolver++",
        lower_order_final=False,
    )
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = torch.tensor([*levels, 0.0])
    x = clean = noise
    for sigma, timestep in zip(levels, scheduler.timesteps, strict=True):
        clean = x - sigma * velocity(x, sigma)
        x = scheduler.step(velocity(x, sigma), timestep, x).prev_sample
    torch.testing.assert_close(ours("dpmpp_2m", noise), clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_step_through_predictions_is_exact_for_polynomials_in_lambda(degree: int) -> None:
    """x / s at the end is that at the start plus the integral of exp(lambda) D over lambda."""

    def clean(where: float) -> float:
        return sum(0.7 * where**power for power in range(degree + 1))

    level, following = 0.8, 0.45
    ends = [math.log((1 - s) / s) for s in (level, following)]
    nodes = [(where, torch.tensor(clean(where))) for where in (-1.1, 0.1, -2.3)[: degree + 1]]
    grid = torch.linspace(ends[0], ends[1], 20_001, dtype=torch.float64)
    integral = torch.trapezoid(grid.exp() * torch.tensor([clean(x) for x in grid.tolist()]), grid)
    expected = following * (1.3 / level + float(integral))
    got = _exponential_step(torch.tensor(1.3), level, following, nodes)
    assert float(got) == pytest.approx(expected, abs=1e-5)


def test_the_first_step_of_unipc_is_that_of_dpmpp_2m(noise: Tensor) -> None:
    two = [sample(solver, denoise, noise, noise, [0.9, 0.6]) for solver in ("dpmpp_2m", "unipc")]
    torch.testing.assert_close(*two)


def test_euler_agrees_with_diffusers(noise: Tensor) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=noise_levels(STEPS))
    x = noise
    for sigma, timestep in zip(noise_levels(STEPS), scheduler.timesteps, strict=True):
        x = scheduler.step(velocity(x, sigma), timestep, x).prev_sample
    torch.testing.assert_close(ours("euler", noise), x, rtol=1e-4, atol=1e-4)


def test_heun_agrees_with_diffusers(noise: Tensor) -> None:
    levels = noise_levels(STEPS)
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = torch.tensor(
        [levels[0], *(level for level in levels[1:] for _ in range(2)), 0.0]
    )
    asked = torch.tensor([levels[0], *(level for level in levels[1:] for _ in range(2))])
    scheduler.timesteps = asked * 1000
    x = noise
    for sigma, timestep in zip(asked.tolist(), scheduler.timesteps, strict=True):
        x = scheduler.step(velocity(x, sigma), timestep, x).prev_sample
    torch.testing.assert_close(ours("heun", noise), x, rtol=1e-4, atol=1e-4)


def test_ddim_agrees_with_diffusers_which_scales_the_path_to_unit_variance(noise: Tensor) -> None:
    levels = noise_levels(STEPS)
    scheduler = DDIMScheduler(
        num_train_timesteps=STEPS, prediction_type="sample", clip_sample=False
    )
    scheduler.set_timesteps(STEPS)
    signal = torch.tensor([(1 - s) ** 2 / ((1 - s) ** 2 + s**2) for s in levels])
    scheduler.alphas_cumprod = signal.flip(0)
    x = noise / math.hypot(1 - levels[0], levels[0])
    for sigma, timestep in zip(levels, scheduler.timesteps, strict=True):
        clean = denoise(x * math.hypot(1 - sigma, sigma), torch.full((2,), sigma), x)
        x = scheduler.step(clean, timestep, x).prev_sample
    torch.testing.assert_close(ours("ddim", noise), x, rtol=1e-4, atol=1e-4)


def gaussian_error(solver: SolverName, steps: int) -> float:
    """Distance from the exact solution, where data is Normal(mean, spread^2): there x - (1 - s)
    mean keeps its number of standard deviations. Levels are even in the log of signal over noise:
    more steps are smaller everywhere."""
    mean, spread = 0.5, 0.3

    def deviation(s: float) -> float:
        return math.hypot((1 - s) * spread, s)

    def exact(x: Tensor, sigma: Tensor, _: Tensor) -> Tensor:
        s = sigma[:, None, None, None]
        return mean + (1 - s) * spread**2 / ((1 - s) ** 2 * spread**2 + s**2) * (x - (1 - s) * mean)

    levels = torch.linspace(2.5, -3, steps, dtype=torch.float64).sigmoid().tolist()
    first, last = levels[0], levels[-1]
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(9, 1, 1, 1)
    end = (1 - last) * mean + (start - (1 - first) * mean) / deviation(first) * deviation(last)
    clean = exact(end, torch.full((9,), last), end)
    return float((sample(solver, exact, start, start, levels) - clean).abs().max())


@pytest.mark.parametrize(
    ("solver", "order"),
    [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3)],
)
def test_the_error_falls_with_the_order_of_the_solver(solver: SolverName, order: int) -> None:
    coarse, fine = gaussian_error(solver, 80), gaussian_error(solver, 160)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_euler_and_ddim_are_one_method_and_heun_asks_twice_a_step(noise: Tensor) -> None:
    assert set(SOLVERS) == set(ALL)
    assert torch.equal(ours("euler", noise), ours("ddim", noise))
    calls = dict.fromkeys(ALL, 0)
    for solver in ALL:

        def counted(x: Tensor, sigma: Tensor, text: Tensor, solver: SolverName = solver) -> Tensor:
            calls[solver] += 1
            return denoise(x, sigma, text)

        sample(solver, counted, noise, noise, noise_levels(5))
    assert calls == {"dpmpp_2m": 5, "unipc": 5, "heun": 9, "euler": 5, "ddim": 5}


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3)])
def test_guidance_extrapolates_from_the_unconditional_prediction(shape: tuple[int, ...]) -> None:
    def shifted(x: Tensor, _: Tensor, text: Tensor) -> Tensor:
        return x + text.flatten(1)[:, 0, None, None, None]

    x, sigma, text = torch.zeros(2, 1, 2, 2), torch.ones(2), torch.full(shape, 2.0)
    assert guided(shifted, 3.0)(x, sigma, text).unique().item() == pytest.approx(6.0)


def counting(sizes: list[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def counted(x: Tensor, _sigma: Tensor, _text: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    return counted


def test_without_guidance_the_model_runs_on_one_half() -> None:
    sizes: list[int] = []
    for scale in (1.0, 2.0):
        sample(
            "dpmpp_2m",
            guided(counting(sizes), scale),
            torch.zeros(3, 1, 2, 2),
            torch.zeros(3, 2),
            noise_levels(1),
        )
    assert sizes == [3, 6]


def test_outside_the_guidance_interval_only_the_conditional_half_runs() -> None:
    sizes: list[int] = []
    denoise_guided = guided(counting(sizes), 2.0, (0.2, 0.8))
    sample(
        "euler",
        denoise_guided,
        torch.zeros(3, 1, 2, 2),
        torch.zeros(3, 2),
        [0.99, 0.8, 0.5, 0.2, 0.1],
    )
    assert sizes == [3, 6, 6, 3, 3]


def test_noise_levels_fall_from_just_below_one() -> None:
    assert noise_levels(4) == [0.99, 0.75, 0.5, 0.25]
    for steps in range(1, 300):
        levels = noise_levels(steps)
        assert len(levels) == steps
        assert 0 < levels[-1] <= levels[0] < 1
        assert all(level > following for level, following in pairwise(levels))
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        noise_levels(0)


@pytest.mark.parametrize(("length", "negative_length"), [(None, None), (3, 5), (5, 3)])
def test_guidance_leads_away_from_a_negative_text(
    length: int | None, negative_length: int | None
) -> None:
    def denoise_by_text(_noisy: Tensor, _sigma: Tensor, text: Tensor) -> Tensor:
        return text.flatten(1).sum(dim=1)  # what the model says is the sum of its text

    shape, negative_shape = ((2, n, 4) if n else (2, 4) for n in (length, negative_length))
    text, negative = torch.rand(shape), torch.rand(negative_shape)[:1]
    noisy, sigma = torch.zeros(2, 1, 2, 2), torch.ones(2)
    guided_away = guided(denoise_by_text, 3.0, negative=negative)(noisy, sigma, text)
    opposite = negative.sum()
    torch.testing.assert_close(guided_away, opposite + 3 * (text.flatten(1).sum(dim=1) - opposite))
