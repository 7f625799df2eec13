"""Diversity of what captions leave open, at values that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_catalog.images import Images
from data_catalog.shapes.dataset import SHAPES, SIZES, Attributes, combinations, draw, parse_caption
from data_catalog.shapes.grader import grade
from pipeline.scoring.open_attributes import first_open_captions, open_attribute_diversity

STAR = Attributes("small", "red", "star", "top left", "blue")


def drawn(*attributes: Attributes) -> Images:
    """Samples of one caption, uint8 [1, k, 64, 64, 3]."""
    return np.stack([draw(a, np.random.default_rng(n)) for n, a in enumerate(attributes)])[None]


def diversity_of(caption: str, *attributes: Attributes) -> float:
    (value,) = open_attribute_diversity(drawn(*attributes), [caption])
    return float(value)


def test_equal_samples_have_none() -> None:
    assert diversity_of("a star", STAR, STAR, STAR) == 0


def test_samples_that_differ_in_what_the_caption_names_have_none() -> None:
    """Wrong samples are not varied."""
    caption = "a shape in the top left on a blue background"
    others = (replace(STAR, background=colour) for colour in ("green", "white"))
    assert diversity_of(caption, STAR, *others) == 0


def test_one_open_attribute_is_the_share_of_pairs_that_differ_over_that_of_the_data() -> None:
    """Two of three pairs differ in size, and half of the pairs of the data."""
    samples = (STAR, STAR, replace(STAR, size="large"))
    assert diversity_of(
        "a red star in the top left on a blue background", *samples
    ) == pytest.approx((2 / 3) / (1 / 2))
    every_shape = (replace(STAR, shape=shape) for shape in SHAPES)
    assert diversity_of(
        "a small red shape in the top left on a blue background", *every_shape
    ) == pytest.approx(1 / (4 / 5))


def test_several_open_attributes_are_averaged() -> None:
    both_sizes = (replace(STAR, size=size) for size in SIZES)
    caption = "a red shape in the top left on a blue background"
    assert diversity_of(caption, *both_sizes) == pytest.approx((1 / (1 / 2) + 0) / 2)


def test_a_colour_is_open_among_those_that_are_not_the_background() -> None:
    two = (replace(STAR, colour=colour) for colour in ("red", "green"))
    caption = "a small star in the top left on a blue background"
    assert diversity_of(caption, *two) == pytest.approx(1 / (4 / 5)), "five colours are left"


def test_what_cannot_be_read_differs_from_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64, 3), dtype=np.uint8)
    caption = "a small red shape in the top left on a blue background"
    assert open_attribute_diversity(noise, [caption]).tolist() == [0]
    blobs = np.full((1, 2, 64, 64, 3), (45, 85, 215), np.uint8)
    blobs[0, 0, 8:12, 8:40] = blobs[0, 1, 52:56, 24:56] = (215, 40, 40)
    of_colours = "a small red star on a blue background"
    assert [grade(blob).position for blob in blobs[0]] == ["top left", "bottom right"]
    assert open_attribute_diversity(blobs, [of_colours]).tolist() == [0]


@pytest.mark.slow
def test_the_data_set_itself_has_one() -> None:
    """On average, for every number of samples."""
    captions = ["a star", "a small red star", "a blue background", "a shape"] * 16
    rng = np.random.default_rng(2)
    samples = []
    for caption in captions:
        description = parse_caption(caption)
        assert description
        fitting = [c for c in combinations() if c.described_by(description)]
        samples.append(drawn(*(fitting[i] for i in rng.integers(len(fitting), size=3))))
    values = open_attribute_diversity(np.concatenate(samples), captions)
    assert values.mean() == pytest.approx(1, abs=0.12)


def test_the_first_distinct_captions_that_leave_something_open_are_chosen() -> None:
    captions = [STAR.caption, "a star", "a red star", "a star", "a blue background"]
    assert first_open_captions(captions, 2) == [1, 2]
    assert first_open_captions(captions, 9) == [1, 2, 4]
    assert first_open_captions(["a dog", "a star"], 9) == [], "a data set of one's own"
