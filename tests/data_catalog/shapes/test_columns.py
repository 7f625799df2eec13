"""The columns of the built-in data set."""

from __future__ import annotations

import pytest

from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.columns import COLUMNS, column

SHORT = ("short_1", "short_2", "short_3", "short_4")


def test_the_table_keeps_held_out_combinations_out_of_the_training_split() -> None:
    table = {name: column(name) for name in COLUMNS}
    assert len(set(table["url"])) == 6000
    for url, caption, split in zip(table["url"], table["caption"], table["split"], strict=True):
        drawing = shapes.Drawing.from_url(url)
        assert drawing
        assert drawing.attributes.caption == caption
        assert split == ("held_out" if drawing.attributes.held_out else "train")
    assert table["split"][:200].count("held_out") == 20


def test_every_caption_is_true_of_its_image_and_short_ones_leave_something_open() -> None:
    table = {name: column(name) for name in COLUMNS}
    for name in ("mixed", *SHORT):
        for url, caption in zip(table["url"], table[name], strict=True):
            drawing, description = shapes.Drawing.from_url(url), shapes.parse_caption(caption)
            assert drawing
            assert description
            assert drawing.attributes.described_by(description)
            assert description.left_open or name == "mixed"
    assert len({tuple(table[name]) for name in SHORT}) == 4


def test_half_of_the_mixed_captions_are_partial_and_held_out_full_ones_are_not_trained_on() -> None:
    table = {name: column(name) for name in COLUMNS}
    captions: dict[str, list[str]] = {"train": [], "held_out": []}
    for caption, split in zip(table["mixed"], table["split"], strict=True):
        captions[split].append(caption)
    for split, partial in (("train", 2700), ("held_out", 300)):
        count = len([caption for caption in captions[split] if left_open(caption)])
        assert count == pytest.approx(partial, rel=0.01), split
    full = [caption for caption in captions["held_out"] if not left_open(caption)]
    assert len(set(full)) == 300, "each held-out combination once"
    assert not set(full) & set(captions["train"])


def left_open(caption: str) -> tuple[str, ...]:
    description = shapes.parse_caption(caption)
    assert description
    return description.left_open
