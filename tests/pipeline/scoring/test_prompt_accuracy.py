"""Prompt accuracy: what a caption leaves open counts neither way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_catalog.shapes.captions import Description
from data_catalog.shapes.dataset import Attributes, draw
from pipeline.scoring.prompt_accuracy import (
    GradedImages,
    accuracy_differences,
    estimate_accuracies,
    grade_images,
)

STAR = Attributes("small", "red", "star", "center", "blue")
CAPTIONS = [
    STAR.caption,  # right
    Description(shape="star").caption,  # right
    Description(shape="circle", position="center").caption,  # another shape
    Description(background="green").caption,  # another background
    Description().caption,  # says nothing that could be wrong
]


def star_images(count: int) -> np.ndarray:
    return np.stack([draw(STAR, np.random.default_rng(seed)) for seed in range(count)])


def graded_stars() -> GradedImages:
    return grade_images(star_images(len(CAPTIONS)), CAPTIONS)


def test_only_what_a_caption_says_is_graded() -> None:
    graded = graded_stars()
    assert graded.all_correct is not None
    assert graded.all_correct.tolist() == [True, True, False, False, True]
    assert graded.is_named("shape").tolist() == [True, True, True, False, False]
    assert graded.is_named("size").tolist() == [True, False, False, False, False]


def test_an_image_without_one_clean_shape_is_wrong_whatever_the_caption_says() -> None:
    doubled = np.roll(star_images(1), 20, axis=2)
    doubled = np.where(np.abs(doubled.astype(int) - star_images(1)).sum(3, keepdims=True) > 90,
                       np.uint8(215), star_images(1))  # fmt: skip
    empty = np.full((1, 64, 64, 3), (45, 85, 215), np.uint8)
    for images in (doubled, empty):
        for caption in ("a shape", "a blue background", "a shape on a blue background"):
            graded = grade_images(images, [caption])
            assert graded.all_correct is not None
            assert graded.all_correct.tolist() == [False], caption
            assert "accuracy/shape" not in estimate_accuracies(graded, np.arange(1))


def test_an_accuracy_is_that_of_the_captions_that_name_the_attribute() -> None:
    estimates = estimate_accuracies(graded_stars(), np.arange(5))
    values = {name: (estimate.value, estimate.n) for name, estimate in estimates.items()}
    assert values == {
        "prompt_accuracy": (pytest.approx(3 / 5), 5),
        "accuracy/size": (1.0, 1),
        "accuracy/colour": (1.0, 1),
        "accuracy/shape": (pytest.approx(2 / 3), 3),
        "accuracy/position": (1.0, 2),
        "accuracy/background": (0.5, 2),
        "prompt_accuracy/full": (1.0, 1),
        "prompt_accuracy/partial": (0.5, 4),
    }


def test_an_attribute_that_no_caption_names_has_no_accuracy() -> None:
    estimates = estimate_accuracies(grade_images(star_images(2), ["a star"] * 2), np.zeros(2, int))
    assert set(estimates) == {"prompt_accuracy", "accuracy/shape", "prompt_accuracy/partial"}


def test_intervals_are_those_of_the_captions_that_count() -> None:
    """60 captions, of which 30 name the size, once right and once wrong each: the interval is that
    of these 30 captions, and too few of them have none."""
    right = torch.arange(60) % 2 == 0
    for captions, is_given in ((30, True), (19, False)):
        named = torch.arange(60) < captions
        graded = GradedImages({"size": right | ~named}, {"size": named})
        estimate = estimate_accuracies(graded, np.arange(60))["accuracy/size"]
        assert estimate.n == captions
        assert estimate.value == pytest.approx(float(right[named].float().mean()))
        assert (estimate.interval is not None) is is_given
        if is_given:
            assert estimate.high - estimate.low > 0.3, "0.5 of 30 is not known better"


def test_a_difference_is_that_of_the_captions_that_name_the_attribute() -> None:
    named = {"size": torch.arange(50) < 25}
    worst, best = (
        GradedImages({"size": torch.full((50,), right) | ~named["size"]}, named)
        for right in (False, True)
    )
    difference = accuracy_differences(worst, best, np.arange(50))
    assert difference["accuracy/size"].value == 1
    assert difference["prompt_accuracy"].value == 0.5
    assert accuracy_differences(worst, GradedImages({}, {}), np.arange(50)) == {}


def test_captions_and_images_of_other_data_have_no_grades() -> None:
    assert grade_images(star_images(2), ["a star", "a dog"]).correct == {}
    assert grade_images(star_images(1)[:, ::2, ::2], ["a star"]).all_correct is None
    assert estimate_accuracies(GradedImages({}, {}), np.arange(0)) == {}
