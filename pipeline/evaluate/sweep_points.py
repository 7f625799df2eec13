"""Points of a sampling sweep: settings with their measured quality and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_catalog.model_files import Average
from pipeline.scoring.bootstrap import Estimate, Groups, bootstrap_difference
from pipeline.scoring.metrics import mean_statistic
from tld_model.config import SamplingSettings


@dataclass(frozen=True, slots=True)
class SamplingVariant:
    """Settings to sample with: a point of the sweep before it is measured.

    The digest of a stored point covers `repr`, so the names of the class and its fields stay.
    """

    sampling: SamplingSettings
    ema: Average

    def overrides(self) -> str:
        """Command-line overrides that select this variant."""
        s = self.sampling
        overrides = (
            f"evaluate.guidance={s.guidance:g} evaluate.steps={s.steps} evaluate.solver={s.solver}"
        )
        return f"{overrides} evaluate.ema={self.ema}" if self.ema else overrides


@dataclass(frozen=True, slots=True)
class Point:
    """A measured sampling variant."""

    way: SamplingVariant
    latency_s: float  # of one image sampled alone: the median of a few runs
    rows: NDArray[np.float64]  # quality of each prompt's sample [n]
    groups: Groups  # the number of each prompt's caption [n]
    quality: Estimate


@dataclass(frozen=True, slots=True)
class Sweep:
    """All measured points of one model."""

    measure: str  # prompt_accuracy, or clip_score if captions cannot be graded
    points: Sequence[Point]
    chosen: SamplingVariant  # the variant of the run's own settings
    best: Point  # the recommended one, see fastest_on_par
    distilled: Point | None = None  # the distilled model of the run, which samples in one way alone

    @property
    def front(self) -> list[Point]:
        """The Pareto front of quality and latency, fastest first."""
        front: list[Point] = []
        for point in sorted(self.points, key=lambda p: (p.latency_s, -p.quality.value)):
            if not front or point.quality.value > front[-1].quality.value:
                front.append(point)
        return front


def fastest_on_par(points: Sequence[Point]) -> Point:
    """The fastest point whose quality is not significantly below the highest.

    Not significantly below means that the interval of the difference, on the same prompts,
    includes 0. With too few captions for an interval it is the highest itself, and of equal ones
    the fastest.
    """
    top = max(points, key=lambda point: (point.quality.value, -point.latency_s))
    if top.quality.interval is None:
        return top
    return min(
        (point for point in points if _as_good(point, top)), key=lambda point: point.latency_s
    )


def _as_good(point: Point, top: Point) -> bool:
    difference = bootstrap_difference(
        mean_statistic(point.rows), mean_statistic(top.rows), top.groups
    )
    return difference.low <= 0
