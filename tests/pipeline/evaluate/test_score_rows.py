"""Tests of pipeline/evaluate/score_rows.py."""

from __future__ import annotations

import math

import numpy as np
import torch

from data_catalog.scores import SCORES
from pipeline.evaluate.score_rows import Drawn, Row, score_rows
from pipeline.scoring.bootstrap import Estimate
from pipeline.scoring.image_scores import ImageScores


def test_a_verdict_needs_an_interval_without_zero() -> None:
    def row(name: str, low: float, high: float) -> Row:
        any_estimate = Estimate(0, 0, 0, 8)
        return Row(name, any_estimate, any_estimate, Estimate((low + high) / 2, low, high, 8))

    assert row("clip_score", 1, 3).verdict == "B"
    assert row("clip_score", -3, -1).verdict == "A"
    assert row("cmmd", 1, 3).verdict == "A"
    assert row("cmmd", -1, 3).verdict == "not shown"
    assert row("diversity", 1, 3).verdict == "B is more varied"
    assert row("clip_score", -math.inf, math.inf).verdict == "no interval"
    for score in SCORES.values():
        larger = {True: "B", False: "A", None: f"B is {score.larger}"}[score.higher_is_better]
        assert row(score.name, 1, 3).verdict == larger


def test_every_score_is_compared_and_the_diversity_of_prompts() -> None:
    def drawn(spread: float) -> Drawn:
        scores = ImageScores({"clip": torch.eye(24)}, torch.arange(24.0).double(), {})
        each = np.linspace(spread - 0.1, spread + 0.1, 22)
        return Drawn(np.zeros((24, 1, 1, 3), np.uint8), scores, each, 1.0)

    first, second = drawn(0.2), drawn(0.8)
    rows = {row.name: row for row in score_rows(first, second, first.judged, np.arange(24))}
    assert rows["clip_score"].difference.value == 0
    assert round(rows["diversity"].first.value, 6) == 0.2
    assert round(rows["diversity"].difference.value, 6) == 0.6
    assert rows["diversity"].verdict == "B is more varied"
