"""Diversity of what captions of the built-in data set leave open, as the grader reads it.

n captions   k samples of each
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from data_catalog.images import Images
from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import Description
from data_catalog.shapes.grader import Grade, grade


def first_open_captions(captions: Sequence[str], most: int) -> list[int]:
    """Where the first `most` distinct captions stand that leave an attribute open; none if they are
    not of the built-in data set."""
    positions = {caption: position for position, caption in reversed(list(enumerate(captions)))}
    described = {caption: shapes.parse_caption(caption) for caption in positions}
    if not all(described.values()):
        return []
    is_open = [positions[caption] for caption, d in described.items() if d and d.left_open]
    return sorted(is_open)[:most]


def open_attribute_diversity(samples: Images, captions: Sequence[str]) -> NDArray[np.float64]:
    """How varied the samples of each caption are in what it leaves open: uint8 [n, k, h, w, 3]
    -> [n].

    For each open attribute: the share of pairs of samples that differ in it, divided by the same
    share in the data set, where all combinations that the caption is true of are equally likely; of
    these, the mean. So 1 is as varied as the data, and 0 has all samples alike. A share of pairs
    that differ is the index of Simpson (1949), which is unbiased for every k; an entropy is not. An
    attribute that the grader cannot read differs from nothing, nor does an image in which it
    recognises no shape, so broken images are not varied.
    """
    return np.array(
        [
            _of_caption([grade(image) for image in images], _described(caption))
            for images, caption in zip(samples, captions, strict=True)
        ]
    )


def _described(caption: str) -> Description:
    description = shapes.parse_caption(caption)
    assert description, "first_open_captions chose captions of the data set"
    return description


def _of_caption(grades: Sequence[Grade], description: Description) -> float:
    combinations = [c for c in shapes.combinations() if c.described_by(description)]
    return float(
        np.mean(
            [
                _pairs_that_differ(getattr(g, name) if g.shape else None for g in grades)
                / _draws_that_differ(getattr(combination, name) for combination in combinations)
                for name in description.left_open
            ]
        )
    )


def _pairs_that_differ(readings: Iterable[str | None]) -> float:
    """The share of pairs of different samples that are read as different values."""
    values = list(readings)
    counts = Counter(value for value in values if value is not None)
    known = counts.total()
    differing = known**2 - sum(count**2 for count in counts.values())
    return differing / (len(values) * (len(values) - 1))


def _draws_that_differ(values: Iterable[str]) -> float:
    """The chance that two independent draws differ."""
    counts = Counter(values)
    return 1 - sum(count**2 for count in counts.values()) / counts.total() ** 2
