"""Captions of the shapes data set: every choice of attributes has one, and it reads back."""

from __future__ import annotations

import itertools

import pytest

from data_catalog.shapes.captions import Description
from data_catalog.shapes.dataset import COLOURS, POSITIONS, SHAPES, SIZES, parse_caption


@pytest.mark.parametrize(
    ("caption", "description"),
    [
        ("a shape", Description()),
        ("a star", Description(shape="star")),
        ("a small red star", Description("small", "red", "star")),
        ("a large shape in the top left", Description(size="large", position="top left")),
        ("a star on a blue background", Description(shape="star", background="blue")),
        ("a blue shape", Description(colour="blue")),
        ("a blue background", Description(background="blue")),
        (
            "a small red star in the top left on a blue background",
            Description("small", "red", "star", "top left", "blue"),
        ),
    ],
)
def test_a_caption_names_what_it_says(caption: str, description: Description) -> None:
    assert description.caption == caption
    assert parse_caption(caption) == description


def test_every_description_reads_back_and_has_a_caption_of_its_own() -> None:
    values = ((None, *words) for words in (SIZES, COLOURS, SHAPES, POSITIONS, COLOURS))
    possible = [
        description
        for choice in itertools.product(*values)
        if (description := Description(*choice)).colour is None
        or description.colour != description.background
    ]
    assert len(possible) == 3 * 6 * 6 * 43
    assert [parse_caption(description.caption) for description in possible] == possible


def test_a_shape_may_be_said_of_a_background() -> None:
    assert parse_caption("a shape on a blue background") == Description(background="blue")


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red",
        "a star red",
        "a red dog",
        "the red star",
        "a red star on a red background",
        "a red star in the middle",
        "a star\n",
        "a blue background in the center",
    ],
)
def test_other_text_is_no_caption(caption: str) -> None:
    assert parse_caption(caption) is None


def test_named_and_open_attributes_are_all_five() -> None:
    star = Description(colour="red", shape="star")
    assert star.named == ("colour", "shape")
    assert star.left_open == ("size", "position", "background")
