"""Bootstrap confidence intervals (95 %) of scores, by resampling the distinct captions.

Images of the same caption are not independent, so all images of a caption are drawn together: the
cluster bootstrap of Davison and Hinkley, Bootstrap Methods and Their Application (1997), section
3.8. The intervals are percentiles (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13); those of shares are Wilson's, see `bootstrap_share`.

n rows (images or pairs)   k distinct captions   r resamplings
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from data_catalog.scores import FEWEST_CAPTIONS, NO_INTERVAL
from pipeline.scoring.metrics import Counts, Statistic, Values

REPLICATES = 1000
_COVERED = 0.95

Groups = NDArray[np.int64]  # [n]: the number of each row's caption, 0 to k - 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score, its 95 % interval, and the number of rows behind it. Without an interval its ends
    are infinite."""

    value: float
    low: float
    high: float
    n: int
    no_interval: str = NO_INTERVAL  # why it is missing, for tables

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None if there are too few captions for one."""
        return None if math.isinf(self.high - self.low) else (self.low, self.high)

    def __str__(self) -> str:
        return "{:.3g} to {:.3g}".format(*self.interval) if self.interval else self.no_interval

    def as_json(self) -> dict[str, float | None]:
        """The estimate for JSON, which has no infinity: a missing interval is null."""
        low, high = self.interval or (None, None)
        return {"value": self.value, "low": low, "high": high, "n": self.n}


def caption_groups(captions: Sequence[str]) -> Groups:
    """The number of each caption: equal captions have the same one."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    return np.array([numbers[caption] for caption in captions], np.int64)


def bootstrap(
    statistic: Statistic,
    groups: Groups,
    replicates: int = REPLICATES,
    lowest: float = -math.inf,
) -> Estimate:
    """The statistic, with percentiles of its replicates on captions drawn with replacement.

    The replicates are shifted so that their mean is the value: to a distance, repeated rows look
    like structure, which shifts all of its replicates; those of a mean are not shifted. No end is
    below `lowest`, which no score is. The random draws are the same in every call.
    """
    value, replicated = _replicate(statistic, groups, replicates)
    if replicated is None:
        return _without_interval(value, groups)
    tail = 50 * (1 - _COVERED)
    low, high = value + np.percentile(replicated - replicated.mean(), [tail, 100 - tail])
    return Estimate(value, max(float(low), lowest), max(float(high), lowest), len(groups))


def bootstrap_share(statistic: Statistic, groups: Groups, replicates: int = REPLICATES) -> Estimate:
    """A share of the rows, with Wilson's interval, which lies in [0, 1] and has a width at 0 and 1
    too.

    Wilson (1927), as in Brown, Cai and DasGupta (2001), eq. 4, for the number of independent rows
    that would vary as much as the replicates do: the effective sample size (Korn and Graubard,
    1998), which Franco et al. (2019) recommend with this interval.
    """
    value, replicated = _replicate(statistic, groups, replicates)
    if replicated is None:
        return _without_interval(value, groups)
    n = _effective_size(value, replicated, groups)
    z = NormalDist().inv_cdf((1 + _COVERED) / 2)
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    # min and max undo rounding at shares of 0 and 1, which are in their intervals.
    ends = min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half))
    return Estimate(value, *ends, len(groups))


def _effective_size(value: float, replicated: Values, groups: Groups) -> float:
    """The number of independent rows whose share varies as the replicates do, at most n. Where all
    rows are alike nothing varies, and those of a caption count as copies."""
    sizes = np.bincount(groups)
    n, k = len(groups), len(sizes)
    variance = float(replicated.var()) * k / (k - 1)  # without the bias of k drawn of k
    if variance == 0:
        return float(n**2 / (sizes**2).sum())
    return min(float(n), value * (1 - value) / variance)


def bootstrap_difference(
    first: Statistic, second: Statistic, groups: Groups, replicates: int = REPLICATES
) -> Estimate:
    """second - first on the same resampled captions, so that the difficulty of prompts cancels
    out."""
    return bootstrap(lambda counts: second(counts) - first(counts), groups, replicates)


def _replicate(
    statistic: Statistic, groups: Groups, replicates: int
) -> tuple[float, Values | None]:
    """The statistic of all rows, and of resampled ones, or None where captions are too few."""
    once = np.ones((1, len(groups)), np.int64)
    if replicates == 0 or groups.max() + 1 < FEWEST_CAPTIONS:
        return float(statistic(once)[0]), None
    values = statistic(np.concatenate([once, _resamplings(groups, replicates)]))
    return float(values[0]), values[1:]


def _without_interval(value: float, groups: Groups) -> Estimate:
    return Estimate(value, -math.inf, math.inf, len(groups))


def _resamplings(groups: Groups, replicates: int) -> Counts:
    """The number of times each row is drawn, which is that of its caption [r, n]"""
    k = int(groups.max()) + 1
    drawn = np.random.default_rng(0).multinomial(k, np.full(k, 1 / k), size=replicates)
    counts: Counts = drawn[:, groups]
    return counts
