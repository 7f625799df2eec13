"""Intervals that cover what they promise, on distributions whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.scoring.bootstrap import bootstrap, bootstrap_difference
from pipeline.scoring.metrics import Statistic, cmmd_statistic, frechet_statistic, mean_statistic


def test_the_interval_of_a_mean_is_that_of_the_textbook_and_the_same_every_time() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    estimate = bootstrap(mean_statistic(values), 400)
    half = 1.96 * values.std() / 400**0.5
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx(
        (estimate.value - half, estimate.value + half), abs=0.15 * half
    )
    assert estimate.n == 400
    assert estimate == bootstrap(mean_statistic(values), 400)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [
        bootstrap(mean_statistic(rng.exponential(size=60)), 60, replicates=300) for _ in range(300)
    ]
    assert 0.90 < np.mean([estimate.low <= 1 <= estimate.high for estimate in estimates]) < 0.98


@pytest.mark.parametrize("of", [frechet_statistic, cmmd_statistic])
def test_the_interval_of_a_distance_holds_its_value_although_repeated_rows_bias_its_replicates(
    of: Callable[[Tensor, Tensor], Statistic],
) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(80, 8), torch.randn(80, 8) + 0.5
    estimate = bootstrap(of(a, b), 80, replicates=100)
    assert estimate.low < estimate.value < estimate.high


def test_a_difference_on_the_same_rows_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(200)  # of each prompt, for both models
    first, second = (
        difficulty + 0.1 * rng.standard_normal(200),
        difficulty + 0.1 + 0.1 * rng.standard_normal(200),
    )
    estimate = bootstrap_difference(mean_statistic(first), mean_statistic(second), 200)
    assert estimate.value == pytest.approx((second - first).mean())
    assert 0 < estimate.low < 0.1 < estimate.high
    alone = bootstrap(mean_statistic(first), 200)
    assert estimate.high - estimate.low < (alone.high - alone.low) / 4


def test_a_single_prompt_gives_no_interval() -> None:
    estimate = bootstrap(mean_statistic(np.array([53.7])), 1)
    assert estimate.value == 53.7
    assert estimate.interval is None
    assert str(estimate) == "–"
    difference = bootstrap_difference(
        mean_statistic(np.array([1.0])), mean_statistic(np.array([2.0])), 1
    )
    assert difference.low <= 0 <= difference.high, "nothing is shown by one prompt"
