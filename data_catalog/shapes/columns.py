"""The columns of the built-in data set: url, split, and captions of several kinds.

`caption` names all five attributes. `short_1` to `short_4` leave some open, and `mixed` has full
and partial captions in turns among the images of each combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from data_catalog.shapes.dataset import (
    HELD_OUT_IMAGES,
    TRAIN_IMAGES,
    Attributes,
    Drawing,
    drawings,
)

COLUMNS = ("url", "caption", "split", "mixed", "short_1", "short_2", "short_3", "short_4")
_PARTIAL_OF_MIXED = 5  # its partial captions are none of short_1 to short_4


@cache
def column(name: str) -> Sequence[str]:
    """The texts of one of COLUMNS, row by row."""
    rows = _rows()
    match name:
        case "url":
            return [row.url for row in rows]
        case "caption":
            return [row.attributes.caption for row in rows]
        case "split":
            return ["held_out" if row.attributes.held_out else "train" for row in rows]
        case "mixed":
            return _mixed(rows)
    assert name in COLUMNS
    return [row.partial_caption(int(name.removeprefix("short_"))) for row in rows]


@cache
def _rows() -> tuple[Drawing, ...]:
    """The images. Held-out ones are spread evenly, so that the beginning of the table, however
    short, contains both splits."""
    train = drawings(TRAIN_IMAGES, held_out=False)
    held_out = drawings(HELD_OUT_IMAGES, held_out=True)
    every = (TRAIN_IMAGES + HELD_OUT_IMAGES) // HELD_OUT_IMAGES
    return tuple(
        next(held_out if i % every == 0 else train) for i in range(TRAIN_IMAGES + HELD_OUT_IMAGES)
    )


def _mixed(rows: Sequence[Drawing]) -> list[str]:
    is_partial: dict[Attributes, bool] = {}
    captions = []
    for row in rows:
        by_chance = row.seed // 2 % 2 == 0  # of the first image; the last bit of seeds alternates
        is_partial[row.attributes] = not is_partial.get(row.attributes, by_chance)
        captions.append(
            row.partial_caption(_PARTIAL_OF_MIXED)
            if is_partial[row.attributes]
            else row.attributes.caption
        )
    return captions
