"""Estimates of a set of images: which scores are given, and within which range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_catalog.scores import DISTANCES, SCORES, missing_distances
from pipeline.scoring.image_scores import ImageScores, estimate_differences, estimate_scores

ALL_RIGHT = {name: torch.ones(1, dtype=torch.bool) for name in ("size", "colour")}


def scores_of(n: int, seed: int) -> ImageScores:
    """Of images all of which are right."""
    features = F.normalize(
        torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) / 50 + 1, dim=1
    )
    correct = {name: verdict.expand(n) for name, verdict in ALL_RIGHT.items()}
    return ImageScores(features, 90 + features[:, 0].double(), correct)


@pytest.mark.parametrize("n", [49, 50])
def test_distances_need_fifty_images(n: int) -> None:
    first, second, reference = (scores_of(n, seed) for seed in range(3))
    groups = np.arange(n)
    estimates = estimate_scores(first, reference, groups)
    differences = estimate_differences(first, second, reference, groups)
    given = set(DISTANCES) if n == 50 else set()
    assert set(DISTANCES) & set(estimates) == set(DISTANCES) & set(differences) == given
    assert {"clip_score", "prompt_accuracy"} <= set(estimates)
    assert bool(missing_distances(n)) is (n == 49)
    assert set(DISTANCES) == {"cmmd", "kernel_distance", "frechet_distance"}


def test_intervals_stay_within_the_range_of_their_score() -> None:
    """A share of 1, and distances of nearly equal sets, whose shifted replicates go below 0."""
    estimates = estimate_scores(scores_of(60, 0), scores_of(60, 1), np.arange(60) % 30)
    for name in ("prompt_accuracy", "accuracy/size", "reference/accuracy/colour"):
        assert 0.8 < estimates[name].low < estimates[name].value == estimates[name].high == 1
    for name in ("cmmd", "frechet_distance"):
        assert SCORES[name].lowest == 0
        assert 0 <= estimates[name].low <= estimates[name].value <= estimates[name].high


def test_scores_of_few_captions_have_no_interval() -> None:
    estimates = estimate_scores(scores_of(60, 0), scores_of(60, 1), np.arange(60) % 19)
    assert set(DISTANCES) < set(estimates)
    assert not [name for name, estimate in estimates.items() if estimate.interval]
