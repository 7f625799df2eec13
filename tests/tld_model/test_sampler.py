import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m


def test_a_denoiser_that_knows_the_truth_samples_the_truth() -> None:
    truth = torch.randn(2, 4, 8, 8)
    noise, text = torch.randn(2, 4, 8, 8), torch.zeros(2, 3)
    for steps in (1, 2, 7, 20):
        sample = sample_dpmpp_2m(lambda *_: truth, noise, text, noise_levels(steps))
        torch.testing.assert_close(sample, truth)


def test_the_solver_agrees_with_that_of_diffusers() -> None:
    levels = noise_levels(12)

    def denoise(x: Tensor, sigma: Tensor, _: Tensor) -> Tensor:
        return torch.tanh(x * (1 - sigma[:, None, None, None])) * 0.7

    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, algorithm_type="dpmsolver++", lower_order_final=False
    )
    scheduler.set_timesteps(12)
    scheduler.sigmas = torch.tensor([*levels, 0.0])
    torch.manual_seed(0)
    x = noise = torch.randn(2, 4, 8, 8)
    clean = x
    for sigma, timestep in zip(levels, scheduler.timesteps, strict=True):
        clean = denoise(x, torch.full((2,), sigma), torch.zeros(2, 1))
        velocity = (x - clean) / sigma
        x = scheduler.step(velocity, timestep, x).prev_sample
    ours = sample_dpmpp_2m(denoise, noise, torch.zeros(2, 1), levels)
    torch.testing.assert_close(ours, clean, rtol=1e-4, atol=1e-4)


def test_guidance_extrapolates_from_the_unconditional_prediction() -> None:
    def denoise(x: Tensor, _: Tensor, text: Tensor) -> Tensor:
        return x + text[:, 0, None, None, None]

    x, sigma, text = torch.zeros(2, 1, 2, 2), torch.ones(2), torch.full((2, 3), 2.0)
    assert guided(denoise, 3.0)(x, sigma, text).unique().item() == pytest.approx(6.0)


def test_without_guidance_the_model_runs_once() -> None:
    sizes: list[int] = []

    def denoise(x: Tensor, _sigma: Tensor, _text: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    for scale in (1.0, 2.0):
        sample_dpmpp_2m(guided(denoise, scale), torch.zeros(3, 1, 2, 2), torch.zeros(3, 2), noise_levels(1))
    assert sizes == [3, 6]


def test_noise_levels_fall_from_just_below_one() -> None:
    assert noise_levels(4) == [0.99, 0.75, 0.5, 0.25]
    for steps in (99, 100, 200, 1000):
        levels = noise_levels(steps)
        assert len(levels) == steps
        assert levels == sorted(set(levels), reverse=True), "no two are equal, which would divide by zero"
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        noise_levels(0)
