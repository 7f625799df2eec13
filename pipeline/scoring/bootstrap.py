"""Bootstrap confidence intervals (95 %) of scores, by resampling the prompts.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.scoring.metrics import Counts, Statistic

REPLICATES = 1000
_COVERED = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score, its 95 % interval, and the number of prompts behind it. A single prompt says nothing
    about the spread, so its interval is infinite."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None for a single prompt."""
        return (self.low, self.high) if self.n > 1 else None

    def __str__(self) -> str:
        return "{:.3g} to {:.3g}".format(*self.interval) if self.interval else "–"


def bootstrap(statistic: Statistic, n: int, replicates: int = REPLICATES) -> Estimate:
    """The statistic of n rows, with percentiles of its replicates on n rows drawn with replacement.

    The replicates are shifted so that their mean is the value: to a distance, repeated rows look
    like structure, which shifts all of its replicates; those of a mean are not shifted. The random
    draws are the same in every call.
    """
    value = float(statistic(np.ones((1, n), np.int64))[0])
    if n < 2:
        return Estimate(value, -math.inf, math.inf, n)
    replicated = statistic(_resamplings(n, replicates))
    tail = 50 * (1 - _COVERED)
    low, high = np.percentile(replicated - replicated.mean(), [tail, 100 - tail])
    return Estimate(value, value + float(low), value + float(high), n)


def bootstrap_difference(
    first: Statistic, second: Statistic, n: int, replicates: int = REPLICATES
) -> Estimate:
    """second - first on the same resampled rows, so that the difficulty of prompts cancels out."""
    return bootstrap(lambda counts: second(counts) - first(counts), n, replicates)


def _resamplings(n: int, replicates: int) -> Counts:
    """The number of times each row is drawn [replicates, n]"""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=replicates)
