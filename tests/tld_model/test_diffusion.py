import math

import pytest
import torch
from torch import Tensor

from tld_model.diffusion import (
    Quantile,
    add_noise,
    beta_quantile,
    clean_by_neighbour,
    denoising_loss,
    drop_condition,
    logit_normal_quantile,
    sample_dropped,
    sample_noise_levels,
    swap_neighbours,
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_is_mixed_on_a_straight_path() -> None:
    clean, noise = torch.ones(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
    mixed = add_noise(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert mixed[:, 0, 0, 0].tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 2.5), (1.5, 1.5), (2.0, 5.0)])
def test_noise_levels_follow_the_beta_distribution(alpha: float, beta: float) -> None:
    levels = sample_noise_levels(20_000, beta_quantile(alpha, beta), seeded())
    expected = torch.distributions.Beta(alpha, beta)
    assert levels.mean().item() == pytest.approx(expected.mean.item(), abs=2e-3)
    assert levels.var().item() == pytest.approx(expected.variance.item(), abs=2e-3)
    assert 0 < levels.min() <= levels.max() <= 1


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (0.5, 0.8), (-1.0, 1.4)])
def test_the_logits_of_logit_normal_noise_levels_are_normal(location: float, scale: float) -> None:
    logits = sample_noise_levels(20_000, logit_normal_quantile(location, scale), seeded()).logit()
    assert logits.mean().item() == pytest.approx(location, abs=0.01)
    assert logits.std().item() == pytest.approx(scale, rel=0.01)
    one_above = logits.lt(location + scale).float().mean().item()
    assert one_above == pytest.approx(0.8413, abs=0.002), (
        "as many within one standard deviation as of a normal"
    )


@pytest.mark.parametrize("quantile", [beta_quantile(1.0, 2.5), logit_normal_quantile(0.0, 1.0)])
def test_a_shift_moves_both_distributions_towards_noise(quantile: Quantile) -> None:
    plain, shifted = (sample_noise_levels(1000, quantile, seeded(), shift) for shift in (1, 3))
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))
    # Esser et al., eq. 23: the log of the signal-to-noise ratio falls by 2 log s
    torch.testing.assert_close(
        shifted.logit() - plain.logit(), torch.full((1000,), math.log(3)), rtol=0, atol=0.02
    )


def test_a_small_batch_covers_the_range_evenly() -> None:
    levels = sample_noise_levels(10, beta_quantile(1.0, 1.0), seeded()).sort().values
    assert torch.equal((levels * 10).floor(), torch.arange(10.0))
    probabilities = torch.special.ndtr(
        sample_noise_levels(10, logit_normal_quantile(0, 1), seeded()).logit().double()
    )
    assert torch.equal(
        (probabilities.sort().values * 10).floor(), torch.arange(10.0, dtype=torch.float64)
    )


@pytest.mark.parametrize("shape", [(10_000, 4), (10_000, 3, 2)])
def test_conditions_are_dropped_in_a_copy(shape: tuple[int, ...]) -> None:
    text = torch.ones(shape)
    dropped = sample_dropped(10_000, 0.15, seeded())
    left = drop_condition(text, dropped)
    assert text.eq(1).all()
    assert torch.equal(left.flatten(1).eq(0).all(dim=1), dropped)
    assert torch.equal(left.flatten(1).eq(1).all(dim=1), ~dropped)
    assert dropped.float().mean().item() == pytest.approx(0.15, abs=0.01)


def test_the_weight_makes_it_the_velocity_error_up_to_its_limit() -> None:
    clean, predicted = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    sigma = torch.tensor([1.0, 0.5, 0.01])
    assert denoising_loss(predicted, clean, sigma, max_weight=10).tolist() == pytest.approx(
        [1.0, 4.0, 10.0]
    )
    assert denoising_loss(predicted, clean, sigma, max_weight=1).tolist() == pytest.approx(
        [1.0, 1.0, 1.0]
    )


def test_without_a_limit_the_loss_is_the_squared_error_of_the_velocity() -> None:
    clean, noise, velocity = (torch.randn(64, 4, 4, 4) for _ in range(3))
    sigma = torch.linspace(1e-3, 1, 64)
    predicted = add_noise(clean, noise, sigma) - sigma[:, None, None, None] * velocity
    of_v = (velocity - (noise - clean)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        denoising_loss(predicted, clean, sigma, math.inf), of_v, rtol=1e-3, atol=0
    )


def test_min_snr_weights_by_the_signal_to_noise_ratio_up_to_gamma() -> None:
    clean, predicted = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    sigma = torch.tensor([1.0, 0.5, 0.4, 0.1])
    weights = denoising_loss(predicted, clean, sigma, max_weight=5, weight="snr").tolist()
    assert weights == pytest.approx([0.0, 1.0, 2.25, 5.0])


def test_a_neighbours_clean_latent_makes_the_contrast_that_of_velocities() -> None:
    clean, noise, predicted = (torch.randn(6, 4, 4, 4) for _ in range(3))
    sigma = torch.linspace(0.1, 1, 6)
    noisy = add_noise(clean, noise, sigma)
    other = clean_by_neighbour(noisy, clean, noise, sigma)
    ours = denoising_loss(predicted, other, sigma, math.inf)

    velocity = (noisy - predicted) / sigma[:, None, None, None]
    others: Tensor = (noise - clean)[[1, 0, 3, 2, 5, 4]]
    torch.testing.assert_close(
        ours, (velocity - others).square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4
    )


def test_an_even_piece_of_a_batch_swaps_as_the_whole_does() -> None:
    rows = torch.arange(8.0)
    assert swap_neighbours(rows).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert torch.equal(swap_neighbours(rows)[2:6], swap_neighbours(rows[2:6]))
