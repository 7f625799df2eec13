"""The scores of two models on the same prompts, and which of them is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_catalog.images import Images
from data_catalog.scores import SCORES, score_on
from pipeline.scoring.bootstrap import Estimate, Groups, bootstrap_difference
from pipeline.scoring.image_scores import (
    ImageScores,
    estimate_differences,
    estimate_score,
    estimate_scores,
)
from pipeline.scoring.metrics import mean_statistic


@dataclass(frozen=True, slots=True)
class Row:
    """A score of both runs on the same prompts."""

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate  # second - first, on the same resampled prompts

    @property
    def verdict(self) -> str:
        """Which run is better, if the interval of the difference excludes 0."""
        if self.difference.interval is None:
            return "no interval"
        if self.difference.low <= 0 <= self.difference.high:
            return "not shown"
        score, larger = SCORES[self.name], self.difference.value > 0
        if score.higher_is_better is None:
            return f"{'B' if larger else 'A'} is {score.larger}"
        return "B" if larger == score.higher_is_better else "A"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Samples of one run, with their scores."""

    samples: Images
    judged: ImageScores
    spreads: NDArray[np.float64]  # diversity of the samples of each prompt
    # Diversity of what partial captions leave open; None if there are none.
    variety: NDArray[np.float64] | None
    seconds_per_image: float


def score_rows(first: Drawn, second: Drawn, reference: ImageScores, groups: Groups) -> list[Row]:
    """Every score of the samples of two models; row i of the samples and of the reference has the
    same caption, whose number is groups[i]."""
    scores = [estimate_scores(drawn.judged, reference, groups) for drawn in (first, second)]
    differences = estimate_differences(first.judged, second.judged, reference, groups)
    rows = [
        Row(name, scores[0][name], scores[1][name], difference)
        for name, difference in differences.items()
    ]
    few = groups[: len(first.spreads)]
    name = score_on("diversity", next(iter(first.judged.features)))
    rows.append(_row_of_means(name, first.spreads, second.spreads, few))
    if first.variety is not None and second.variety is not None:
        distinct = np.arange(len(first.variety))
        rows.append(
            _row_of_means("open_attribute_diversity", first.variety, second.variety, distinct)
        )
    return rows


def _row_of_means(
    name: str, first: NDArray[np.float64], second: NDArray[np.float64], groups: Groups
) -> Row:
    statistics = mean_statistic(first), mean_statistic(second)
    of_first, of_second = (estimate_score(name, statistic, groups) for statistic in statistics)
    return Row(name, of_first, of_second, bootstrap_difference(*statistics, groups))
