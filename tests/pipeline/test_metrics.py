import pytest
import torch

from pipeline.metrics import clip_scores, cmmd, frechet_distance


def test_equal_sets_are_at_distance_zero_and_it_grows_with_a_shift() -> None:
    torch.manual_seed(0)
    a = torch.randn(500, 16)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)
    for distance in (frechet_distance, cmmd):
        near, far = distance(a, a + 0.5), distance(a, a + 2.0)
        assert 0 < near < far


def test_the_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(200_000, 2), torch.randn(200_000, 2) * torch.tensor([2.0, 3.0]) + torch.tensor([1.0, 0.0])
    # squared mean difference + sum of (1 - s)^2 over the standard deviations s of b
    assert frechet_distance(a, b) == pytest.approx(1 + (1 - 2) ** 2 + (1 - 3) ** 2, rel=0.02)


def test_cmmd_of_two_points_by_hand() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])  # normalized: at squared distance 2
    expected = 1000 * (2 - 2 * torch.exp(torch.tensor(-2 / 200.0, dtype=torch.float64))).item()
    assert cmmd(a, b) == pytest.approx(expected)


def test_clip_scores_are_cosines() -> None:
    scores = clip_scores(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]]))
    assert scores.tolist() == pytest.approx([100.0, 100 / 2**0.5])
