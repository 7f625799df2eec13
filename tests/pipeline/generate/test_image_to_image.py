from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.generate.image_to_image import InputImageError, image_to_image, levels_from
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings
from tld_model.sampler import noise_levels

SAMPLING = SamplingSettings(steps=4)
CAPTIONS = ["a small red star", "a large blue circle"]


def image() -> NDArray[np.uint8]:
    return np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)


def test_at_strength_1_nothing_stays_and_below_it_the_picture_matters() -> None:
    generate, other = untrained_generator(), 255 - image()
    whole = image_to_image(generate, CAPTIONS, image(), 1, [3, 4], SAMPLING)
    assert np.abs(whole.astype(int) - generate(CAPTIONS, [3, 4], SAMPLING)).max() <= 1
    drawn, drawn_of_other = (
        image_to_image(generate, CAPTIONS, one, 0.5, [3, 4], SAMPLING) for one in (image(), other)
    )
    assert (drawn != whole).any()
    assert (drawn != drawn_of_other).any()


def test_a_picture_depends_on_its_caption_and_seed_alone() -> None:
    generate = untrained_generator()
    both = image_to_image(generate, CAPTIONS, image(), 0.5, [3, 4], SAMPLING).astype(int)
    alone = image_to_image(generate, CAPTIONS[1:], image(), 0.5, [4], SAMPLING).astype(int)
    assert np.abs(both[1] - alone[0]).max() <= 1
    assert (image_to_image(generate, CAPTIONS[1:], image(), 0.5, [5], SAMPLING) != alone).any()
    away = image_to_image(generate, CAPTIONS[1:], image(), 0.5, [4], SAMPLING, negative="a star")
    assert (away != alone).any()


def test_the_levels_are_the_strength_and_those_below() -> None:
    assert levels_from(1, 10) == noise_levels(10)
    assert levels_from(0.45, 10) == [0.45, *noise_levels(10)[6:]]
    assert levels_from(0.4, 5) == [0.4, *noise_levels(5)[4:]]
    assert levels_from(0.05, 10) == [0.05]
    for strength in (0, -1, 1.01, float("nan")):
        with pytest.raises(InputImageError, match="the strength must be above 0 and at most 1"):
            levels_from(strength, 10)
