"""Intervals that cover what they promise, on distributions whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.scoring.bootstrap import (
    Estimate,
    Groups,
    bootstrap,
    bootstrap_difference,
    bootstrap_share,
    caption_groups,
)
from pipeline.scoring.metrics import Statistic, cmmd_statistic, frechet_statistic, mean_statistic


def test_the_interval_of_a_mean_is_that_of_the_textbook_and_the_same_every_time() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    estimate = bootstrap(mean_statistic(values), np.arange(400))
    half = 1.96 * values.std() / 400**0.5
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx(
        (estimate.value - half, estimate.value + half), abs=0.15 * half
    )
    assert estimate.n == 400
    assert estimate == bootstrap(mean_statistic(values), np.arange(400))


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [
        bootstrap(mean_statistic(rng.exponential(size=60)), np.arange(60), replicates=300)
        for _ in range(300)
    ]
    assert 0.90 < np.mean([estimate.low <= 1 <= estimate.high for estimate in estimates]) < 0.98


@pytest.mark.parametrize("of", [frechet_statistic, cmmd_statistic])
def test_the_interval_of_a_distance_holds_its_value_although_repeated_rows_bias_its_replicates(
    of: Callable[[Tensor, Tensor], Statistic],
) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(80, 8), torch.randn(80, 8) + 0.5
    estimate = bootstrap(of(a, b), np.arange(80), replicates=100)
    assert estimate.low < estimate.value < estimate.high


def test_a_difference_on_the_same_rows_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(200)  # of each prompt, for both models
    first, second = (
        difficulty + 0.1 * rng.standard_normal(200),
        difficulty + 0.1 + 0.1 * rng.standard_normal(200),
    )
    estimate = bootstrap_difference(mean_statistic(first), mean_statistic(second), np.arange(200))
    assert estimate.value == pytest.approx((second - first).mean())
    assert 0 < estimate.low < 0.1 < estimate.high
    alone = bootstrap(mean_statistic(first), np.arange(200))
    assert estimate.high - estimate.low < (alone.high - alone.low) / 4


def clustered_shares(
    rng: np.random.Generator, k: int, share: float, alike: float
) -> tuple[NDArray[np.float64], Groups]:
    """Two rows of each of k captions, right with probability `share`; those of some captions (a
    fraction `alike`) are right or wrong together."""
    right = rng.random((k, 2)) < share
    together = rng.random(k) < alike
    right[together, 1] = right[together, 0]
    return right.ravel().astype(float), np.arange(k).repeat(2)


def coverage(estimates: Sequence[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.parametrize(
    ("k", "share", "alike"), [(60, 0.9, 1.0), (60, 0.5, 0.8), (40, 0.98, 0.5), (25, 0.9, 1.0)]
)
def test_the_interval_of_a_share_covers_the_truth_where_captions_repeat(
    k: int, share: float, alike: float
) -> None:
    rng = np.random.default_rng(0)
    sets = [clustered_shares(rng, k, share, alike) for _ in range(400)]
    by_caption = [bootstrap_share(mean_statistic(rows), groups, 300) for rows, groups in sets]
    assert 0.92 <= coverage(by_caption, share) <= 0.98
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in by_caption)
    by_row = [bootstrap(mean_statistic(rows), np.arange(2 * k), 300) for rows, _ in sets]
    assert coverage(by_row, share) < 0.88, "rows are not independent"


def test_the_interval_of_a_mean_covers_the_truth_where_captions_repeat() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(50).repeat(3)
    sets: list[NDArray[np.float64]] = [
        rng.standard_normal(50)[groups] + rng.standard_normal(150) for _ in range(400)
    ]
    by_caption = [bootstrap(mean_statistic(rows), groups, 300) for rows in sets]
    assert 0.92 <= coverage(by_caption, 0) <= 0.98
    by_row = [bootstrap(mean_statistic(rows), np.arange(150), 300) for rows in sets]
    assert coverage(by_row, 0) < 0.88


def test_a_share_of_all_or_none_has_an_interval_with_a_width() -> None:
    groups = np.arange(40).repeat(2)
    every = bootstrap_share(mean_statistic(np.ones(80)), groups)
    none = bootstrap_share(mean_statistic(np.zeros(80)), groups)
    assert (every.high, none.low) == (1, 0)
    # Wilson's with z = 1.96: n / (n + z^2), of 40 captions, not of 80 rows
    assert every.low == pytest.approx(40 / (40 + 1.96**2), abs=1e-4)
    assert none.high == pytest.approx(1 - every.low)


def test_a_share_of_independent_rows_has_wilsons_interval() -> None:
    rows = (np.arange(200) < 180).astype(float)
    estimate = bootstrap_share(mean_statistic(rows), np.arange(200))
    assert estimate.interval == pytest.approx((0.8506, 0.9344), abs=0.003)


def test_rows_of_a_caption_are_drawn_together() -> None:
    """With copies of each row the interval is that of the captions alone."""
    values = np.random.default_rng(0).standard_normal(30)
    groups = np.arange(30)
    alone = bootstrap(mean_statistic(values), groups)
    copied = bootstrap(mean_statistic(values.repeat(4)), groups.repeat(4))
    assert copied.interval == pytest.approx(alone.interval)
    assert (alone.n, copied.n) == (30, 120)


def test_no_end_is_below_what_a_score_can_be() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    free = bootstrap(mean_statistic(values), np.arange(40))
    bounded = bootstrap(mean_statistic(values), np.arange(40), lowest=free.value)
    assert bounded.interval == (free.value, free.high)


def test_equal_captions_have_one_number() -> None:
    assert caption_groups(["a", "b", "a", "c", "b"]).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("of", [bootstrap, bootstrap_share])
def test_fewer_than_twenty_captions_give_no_interval(of: Callable[..., Estimate]) -> None:
    rows = (np.arange(60) % 2).astype(np.float64)
    enough = of(mean_statistic(rows), np.arange(60) % 20)
    assert enough.interval
    few = of(mean_statistic(rows), np.arange(60) % 19)
    assert few.value == enough.value == 0.5
    assert few.interval is None
    assert str(few) == "< 20 captions"
    assert few.as_json() == {"value": 0.5, "low": None, "high": None, "n": 60}


def test_one_caption_shows_no_difference() -> None:
    difference = bootstrap_difference(
        mean_statistic(np.array([1.0])), mean_statistic(np.array([2.0])), np.array([0])
    )
    assert difference.value == 1
    assert difference.low <= 0 <= difference.high
