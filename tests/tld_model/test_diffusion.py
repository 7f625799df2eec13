import pytest
import torch

from tld_model.diffusion import add_noise, denoising_loss, draw_noise_levels, drop_condition


def test_noise_is_mixed_on_a_straight_path() -> None:
    clean, noise = torch.ones(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
    mixed = add_noise(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert mixed[:, 0, 0, 0].tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 2.5), (1.5, 1.5), (2.0, 5.0)])
def test_noise_levels_follow_the_beta_distribution(alpha: float, beta: float) -> None:
    levels = draw_noise_levels(20_000, alpha, beta, torch.Generator().manual_seed(0))
    expected = torch.distributions.Beta(alpha, beta)
    assert levels.mean().item() == pytest.approx(expected.mean.item(), abs=2e-3)
    assert levels.var().item() == pytest.approx(expected.variance.item(), abs=2e-3)
    assert 0 < levels.min() <= levels.max() <= 1


def test_a_small_batch_covers_the_range_evenly() -> None:
    levels = draw_noise_levels(10, 1.0, 1.0, torch.Generator().manual_seed(0)).sort().values
    assert torch.equal((levels * 10).floor(), torch.arange(10.0))


def test_conditions_are_dropped_in_a_copy() -> None:
    text = torch.ones(10_000, 4)
    dropped = drop_condition(text, 0.15, torch.Generator().manual_seed(0))
    assert text.eq(1).all()
    assert dropped.sum(dim=1).eq(0).float().mean().item() == pytest.approx(0.15, abs=0.01)
    by_token = drop_condition(torch.ones(10_000, 3, 4), 0.15, torch.Generator().manual_seed(0))
    assert torch.equal(by_token.sum(dim=(1, 2)) / 3, dropped.sum(dim=1)), "a caption is dropped whole"


def test_the_weight_makes_it_the_velocity_error_up_to_its_limit() -> None:
    clean, predicted = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    sigma = torch.tensor([1.0, 0.5, 0.01])
    assert denoising_loss(predicted, clean, sigma, max_weight=10).tolist() == pytest.approx([1.0, 4.0, 10.0])
    assert denoising_loss(predicted, clean, sigma, max_weight=1).tolist() == pytest.approx([1.0, 1.0, 1.0])
