"""Caption sampling: the choice of one caption per pair and epoch, by the weights of the columns.

The choice is a function of (seed, epoch, pair), so neither a resume nor another number of processes
changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.pair_draws import uniform_of_pairs


class CaptionColumnError(ValueError):
    """Invalid weights of caption columns: an unknown column, or only weights of 0."""


@dataclass(frozen=True, slots=True)
class CaptionSampler:
    """Chooses one of the captions of each pair."""

    weights: NDArray[np.float64]  # of each caption column, the main one first
    seed: int

    def uniform(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """A uniform random number in [0, 1) for each pair in its epoch [b]"""
        return uniform_of_pairs(self.seed, numbers, epochs)

    def choose(self, columns: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """The position of the chosen caption among the captions of each pair [b]. `columns` [b, c]
        are the columns of these captions, -1 where there is none. A pair without any weighted
        caption uses its first, the main one."""
        weights = np.where(columns >= 0, self.weights[columns], 0)
        reached = weights.cumsum(axis=1)
        total = reached[:, -1:]
        place = (uniform[:, None] * total >= reached).sum(axis=1)
        return np.where(total[:, 0] > 0, np.minimum(place, (columns >= 0).sum(axis=1) - 1), 0)


def caption_sampler(
    columns: Sequence[str], weights: Mapping[str, float], seed: int
) -> CaptionSampler | None:
    """A sampler for weights by column name, 1 by default; None if there is only one column.

    Raises CaptionColumnError if the weights are invalid.
    """
    if problem := wrong_weights([columns], weights):
        raise CaptionColumnError(f"train.caption_weights: {problem}")
    if len(columns) == 1:
        return None
    return CaptionSampler(np.array([weights.get(name, 1.0) for name in columns], np.float64), seed)


def weights_among(columns: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of these columns alone."""
    return {name: weight for name, weight in weights.items() if name in columns}


def wrong_weights(sets: Sequence[Sequence[str]], weights: Mapping[str, float]) -> str | None:
    """What is wrong with weights for the columns of a set of pairs, or of several, or None."""
    known = dict.fromkeys(name for columns in sets for name in columns)
    if unknown := [name for name in weights if name not in known]:
        return (
            f"no such caption column: {', '.join(unknown)}; the captions come from "
            f"{', '.join(known)}"
        )
    for columns in sets:
        if not any(weights.get(name, 1.0) for name in columns):
            of_set = "" if len(sets) == 1 else f" of {', '.join(columns)}"
            return f"all captions{of_set} have weight 0"
    return None
