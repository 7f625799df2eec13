"""Estimates of a set of images: which scores are given, and within which range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_catalog.feature_names import FEATURE_NAMES
from data_catalog.scores import DISTANCES, NO_INTERVAL, SCORES, missing_distances, no_interval
from pipeline.scoring.image_scores import (
    ImageScores,
    estimate_differences,
    estimate_score,
    estimate_scores,
    load_judged,
    save_judged,
)
from pipeline.scoring.metrics import mean_statistic
from pipeline.scoring.prompt_accuracy import GradedImages

ON_CLIP = {"cmmd", "kernel_distance", "frechet_distance"}
ALL_RIGHT = {name: torch.ones(1, dtype=torch.bool) for name in ("size", "colour")}


def scores_of(n: int, seed: int) -> ImageScores:
    """Of images all of which are right."""
    features = F.normalize(
        torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) / 50 + 1, dim=1
    )
    correct = {name: verdict.repeat(n) for name, verdict in ALL_RIGHT.items()}
    graded = GradedImages(correct, {})
    return ImageScores({"clip": features}, 90 + features[:, 0].double(), graded)


@pytest.mark.parametrize("n", [49, 50])
def test_distances_need_fifty_images(n: int) -> None:
    first, second, reference = (scores_of(n, seed) for seed in range(3))
    groups = np.arange(n)
    estimates = estimate_scores(first, reference, groups)
    differences = estimate_differences(first, second, reference, groups)
    expected = ON_CLIP if n == 50 else set()
    assert set(DISTANCES) & set(estimates) == set(DISTANCES) & set(differences) == expected
    assert {"clip_score", "prompt_accuracy"} <= set(estimates)
    assert bool(missing_distances(n)) is (n == 49)


def test_distances_are_given_on_each_of_the_features() -> None:
    rows = {name: scores_of(60, seed).features["clip"] for seed, name in enumerate(FEATURE_NAMES)}
    first, second = (
        ImageScores(rows, None, GradedImages({}, {})),
        ImageScores(rows, None, GradedImages({}, {})),
    )
    estimates = estimate_scores(first, second, np.arange(60))
    assert set(estimates) == set(DISTANCES)
    assert {"fid", "kid", "cmmd/inception", "frechet_distance/dinov2"} < set(DISTANCES)
    assert set(estimate_differences(first, second, second, np.arange(60))) == set(DISTANCES)


def test_scores_on_several_features_are_stored(tmp_path: Path) -> None:
    features = {"clip": torch.rand(2, 3), "dinov2": torch.rand(2, 5)}
    save_judged(ImageScores(features, None, GradedImages({}, {})), tmp_path / "judged.safetensors")
    stored = load_judged(tmp_path / "judged.safetensors")
    assert stored
    assert stored.features.keys() == features.keys()
    assert all(torch.equal(stored.features[name], rows) for name, rows in features.items())


def test_frechet_distances_of_many_images_have_no_interval_and_say_why() -> None:
    """A bootstrap of them takes too long; the others keep theirs."""
    n, statistic = 10_001, mean_statistic(np.zeros(10_001))
    estimate = estimate_score("fid", statistic, np.arange(n))
    assert estimate.interval is None
    assert str(estimate) == no_interval("fid", n) == "> 10,000 images"
    assert estimate_score("fid", mean_statistic(np.zeros(99)), np.arange(99)).interval
    assert no_interval("kid", n) == no_interval("fid", 99) == NO_INTERVAL
    few = estimate_score("fid", mean_statistic(np.zeros(99)), np.zeros(99, np.int64))
    assert str(few) == NO_INTERVAL


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
    assert set(estimates) > ON_CLIP
    assert not [name for name, estimate in estimates.items() if estimate.interval]


def test_stored_scores_read_back_and_earlier_ones_name_all_attributes(tmp_path: Path) -> None:
    named = {"size": torch.tensor([True, False]), "colour": torch.tensor([True, True])}
    scores = scores_of(2, 0)
    stored = replace(scores, graded=replace(scores.graded, named=named))
    save_judged(stored, tmp_path / "now.safetensors")
    now = load_judged(tmp_path / "now.safetensors")
    assert now
    assert now.graded.is_named("size").tolist() == [True, False]
    assert now.graded.correct.keys() == ALL_RIGHT.keys()
    save_judged(scores, tmp_path / "earlier.safetensors")  # as 0.1.0 did, without `named`
    earlier = load_judged(tmp_path / "earlier.safetensors")
    assert earlier
    assert earlier.graded.is_named("size").tolist() == [True, True]
