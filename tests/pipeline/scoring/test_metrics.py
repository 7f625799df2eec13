"""Scores against known answers: closed forms, direct double sums, scipy's matrix root."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.scoring import metrics
from pipeline.scoring.metrics import (
    Statistic,
    clip_scores,
    cmmd,
    cmmd_statistic,
    diversity,
    frechet_distance,
    frechet_statistic,
    kernel_distance,
    kernel_distance_statistic,
    kid,
    kid_statistic,
    mean_statistic,
)
from tests.support.feature_networks import import_without_torchvision, needs_fidelity


def test_equal_sets_are_at_distance_zero_and_it_grows_with_a_shift() -> None:
    torch.manual_seed(0)
    a = torch.randn(500, 16)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert kid(a, a) == pytest.approx(0, abs=1e-9)
    for distance in (frechet_distance, cmmd):
        near, far = distance(a, a + 0.5), distance(a, a + 2.0)
        assert 0 < near < far


def test_the_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(0)
    a, b = (
        torch.randn(200_000, 2),
        torch.randn(200_000, 2) * torch.tensor([2.0, 3.0]) + torch.tensor([1.0, 0.0]),
    )
    # squared mean difference + sum of (1 - s)^2 over the standard deviations s of b
    assert frechet_distance(a, b) == pytest.approx(1 + (1 - 2) ** 2 + (1 - 3) ** 2, rel=0.02)


def test_cmmd_of_two_points_by_hand() -> None:
    a, b = (
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[0.0, 5.0]]),
    )  # normalized: at squared distance 2
    expected = 1000 * (2 - 2 * torch.exp(torch.tensor(-2 / 200.0, dtype=torch.float64))).item()
    assert cmmd(a, b) == pytest.approx(expected)


def test_clip_scores_are_cosines() -> None:
    scores = clip_scores(
        torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    )
    assert scores.tolist() == pytest.approx([100.0, 100 / 2**0.5])


def test_the_frechet_distance_of_a_shifted_gaussian_is_the_squared_shift() -> None:
    torch.manual_seed(0)
    a, shift = torch.randn(300, 8), torch.linspace(-1, 2, 8)
    assert frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item())


@pytest.mark.parametrize(
    "n", [100, 6]
)  # more samples than dimensions, and fewer: covariances of full and lower rank
def test_the_frechet_distance_agrees_with_scipys_matrix_root(n: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal((n, 8)),
        rng.standard_normal((n + 3, 8)) @ rng.standard_normal((8, 8)),
    )
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(
        expected, rel=1e-6
    )


def test_the_frechet_distance_of_gaussians_with_full_covariances() -> None:
    """Samples that are moved to have exactly these moments, against the closed form."""
    rng = np.random.default_rng(1)
    roots = rng.standard_normal((2, 6, 6))
    means = rng.standard_normal((2, 6))
    sets = []
    for root, mean in zip(roots, means, strict=True):
        white = rng.standard_normal((50, 6))
        white -= white.mean(0)
        white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
        sets.append(torch.from_numpy(white @ root.T + mean))
    a, b = (root @ root.T for root in roots)
    half = scipy.linalg.sqrtm(a).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(
        a + b - 2 * scipy.linalg.sqrtm(half @ b @ half).real
    )
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-9)


@needs_fidelity
def test_fid_and_kid_are_those_of_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    import_without_torchvision(monkeypatch)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import mmd2

    torch.manual_seed(0)
    a, b = torch.randn(80, 16).double(), 1.3 * torch.randn(80, 16).double() + 0.2
    statistics = (fid_features_to_statistics(x) for x in (a, b))
    (fid,) = fid_statistics_to_metric(*statistics, verbose=False).values()
    assert frechet_distance(a, b) == pytest.approx(fid, rel=1e-9)

    aa, ab, bb = (((x @ y.T / 16 + 1) ** 3).numpy() for x, y in ((a, a), (a, b), (b, b)))
    assert kid(a, b) == pytest.approx(mmd2(aa, ab, bb, mmd_est="u-statistic"), rel=1e-9)


@pytest.mark.parametrize("of", [cmmd_statistic, kernel_distance_statistic, kid_statistic])
def test_kernel_sums_are_the_same_in_any_blocks(
    of: Callable[[Tensor, Tensor], Statistic], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(41, 4), torch.randn(41, 4) + 1
    counts = np.random.default_rng(0).multinomial(41, np.full(41, 1 / 41), size=5)
    whole = of(a, b)(counts)
    monkeypatch.setattr(metrics, "_ROWS", 7)
    assert of(a, b)(counts) == pytest.approx(whole, rel=1e-12)


def test_kernels_of_many_images_need_no_whole_matrix() -> None:
    """One of 6,000 x 6,000 numbers has 288 MB."""
    rows = torch.randn(6000, 8)
    statistic, counts = kid_statistic(rows, rows + 1), np.ones((1, 6000), np.int64)
    tracemalloc.start()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        statistic(counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = max(event.self_cpu_memory_usage / event.count for event in profiled.key_averages())
    assert largest < 60e6
    assert peak < 100e6


def test_the_kernel_distance_is_the_double_sum_of_kids_kernel_over_pairs_of_different_captions() -> (
    None
):
    torch.manual_seed(0)
    a, b = torch.randn(5, 4).double(), torch.randn(5, 4).double() + 1

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / x.norm() / y.norm() + 1) ** 3)

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    terms = [kernel(a[i], a[j]) + kernel(b[i], b[j]) - 2 * kernel(a[i], b[j]) for i, j in pairs]
    assert kernel_distance(a, b) == pytest.approx(1000 * np.mean(terms))


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average_although_captions_make_rows_alike() -> (
    None
):
    torch.manual_seed(0)
    captions = [torch.randn(40, 8) for _ in range(200)]
    distances = [
        kernel_distance(caption + torch.randn(40, 8), caption + torch.randn(40, 8))
        for caption in captions
    ]
    assert min(distances) < 0 < max(distances)
    assert abs(np.mean(distances)) < 3 * np.std(distances) / len(distances) ** 0.5


@pytest.mark.parametrize(
    ("distance", "of"),
    [
        (frechet_distance, frechet_statistic),
        (cmmd, cmmd_statistic),
        (kernel_distance, kernel_distance_statistic),
        (kid, kid_statistic),
    ],
)
def test_counts_are_the_same_as_repeated_rows(
    distance: Callable[[Tensor, Tensor], float], of: Callable[[Tensor, Tensor], Statistic]
) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(9, 4), torch.randn(9, 4) + 1
    counts = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), size=3)
    expected = [
        distance(a[rows], b[rows]) for rows in (np.repeat(np.arange(9), row) for row in counts)
    ]
    assert of(a, b)(counts).tolist() == pytest.approx(expected)
    assert of(a, b)(np.ones((1, 9), np.int64))[0] == pytest.approx(distance(a, b))


def test_a_mean_counts_rows() -> None:
    assert mean_statistic(np.array([1.0, 4.0]))(np.array([[1, 1], [0, 2]])).tolist() == [2.5, 4.0]


def test_diversity_is_the_mean_distance_of_pairs_and_zero_for_equal_samples() -> None:
    right, up, left = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    of_three = diversity(torch.stack([torch.stack([right, up, left]), torch.stack([up, up, up])]))
    assert of_three.tolist() == pytest.approx([100 * (1 + 1 + 2) / 3, 0])
    with pytest.raises(ValueError, match="at least 2 samples per prompt, got 1"):
        diversity(right[None, None])
