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
    told = bootstrap(mean_statistic(values), 400)
    half = 1.96 * values.std() / 400**0.5
    assert told.value == pytest.approx(values.mean())
    assert (told.low, told.high) == pytest.approx(
        (told.value - half, told.value + half), abs=0.15 * half
    )
    assert told.n == 400
    assert told == bootstrap(mean_statistic(values), 400)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [
        bootstrap(mean_statistic(rng.exponential(size=60)), 60, replicates=300) for _ in range(300)
    ]
    assert 0.90 < np.mean([told.low <= 1 <= told.high for told in found]) < 0.98


@pytest.mark.parametrize("of", [frechet_statistic, cmmd_statistic])
def test_the_interval_of_a_distance_holds_its_value_although_repeated_rows_bias_its_replicates(
    of: Callable[[Tensor, Tensor], Statistic],
) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(80, 8), torch.randn(80, 8) + 0.5
    told = bootstrap(of(a, b), 80, replicates=100)
    assert told.low < told.value < told.high


def test_a_difference_on_the_same_rows_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(200)  # of each prompt, for both models
    first, second = (
        difficulty + 0.1 * rng.standard_normal(200),
        difficulty + 0.1 + 0.1 * rng.standard_normal(200),
    )
    told = bootstrap_difference(mean_statistic(first), mean_statistic(second), 200)
    assert told.value == pytest.approx((second - first).mean())
    assert 0 < told.low < 0.1 < told.high
    alone = bootstrap(mean_statistic(first), 200)
    assert told.high - told.low < (alone.high - alone.low) / 4


def test_a_single_prompt_gives_no_interval() -> None:
    estimate = bootstrap(mean_statistic(np.array([53.7])), 1)
    assert estimate.value == 53.7
    assert estimate.interval is None
    assert str(estimate) == "–"
    difference = bootstrap_difference(
        mean_statistic(np.array([1.0])), mean_statistic(np.array([2.0])), 1
    )
    assert difference.low <= 0 <= difference.high, "nothing is shown by one prompt"
