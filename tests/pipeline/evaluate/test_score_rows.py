"""Tests of pipeline/evaluate/score_rows.py."""

from __future__ import annotations

import math

import numpy as np
import torch

from data_catalog.scores import SCORES
from pipeline.evaluate.score_rows import Drawn, Row, score_rows
from pipeline.scoring.bootstrap import Estimate
from pipeline.scoring.image_scores import ImageScores
from pipeline.scoring.prompt_accuracy import GradedImages


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
        scores = ImageScores(
            {"clip": torch.eye(24)}, torch.arange(24.0).double(), GradedImages({}, {})
        )
        each = np.linspace(spread - 0.1, spread + 0.1, 22)
        return Drawn(np.zeros((24, 1, 1, 3), np.uint8), scores, each, None, 1.0)

    first, second = drawn(0.2), drawn(0.8)
    rows = {row.name: row for row in score_rows(first, second, first.judged, np.arange(24))}
    assert rows["clip_score"].difference.value == 0
    assert round(rows["diversity"].first.value, 6) == 0.2
    assert round(rows["diversity"].difference.value, 6) == 0.6
    assert rows["diversity"].verdict == "B is more varied"


def test_variety_in_what_captions_leave_open_is_compared_where_both_have_it() -> None:
    def drawn(variety: float | None) -> Drawn:
        scores = ImageScores(
            {"clip": torch.eye(24)}, torch.arange(24.0).double(), GradedImages({}, {})
        )
        each = None if variety is None else np.linspace(variety - 0.1, variety + 0.1, 24)
        images = np.zeros((24, 1, 1, 3), np.uint8)
        return Drawn(images, scores, np.linspace(1, 2, 16), each, 1.0)

    first, second = drawn(0.2), drawn(0.8)
    rows = {row.name: row for row in score_rows(first, second, first.judged, np.arange(24))}
    variety = rows["open_attribute_diversity"]
    assert round(variety.first.value, 6) == 0.2
    assert round(variety.difference.value, 6) == 0.6
    assert variety.verdict == "B is more varied"
    assert rows["clip_score"].difference.value == 0
    one_sided = score_rows(first, drawn(None), first.judged, np.arange(24))
    assert "open_attribute_diversity" not in {row.name for row in one_sided}
