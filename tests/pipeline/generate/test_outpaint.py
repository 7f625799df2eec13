from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.generate.generator import ImageGenerator
from pipeline.generate.outpaint import outpaint, panorama
from pipeline.generate.tiling import Border, WindowError
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings

SAMPLING = SamplingSettings(steps=2)


@pytest.fixture(scope="module")
def generate() -> ImageGenerator:
    return untrained_generator()


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.slow
def test_a_picture_grows_at_its_sides_and_stays_what_it_is(generate: ImageGenerator) -> None:
    border = Border(left=20, right=80, bottom=16)
    grown = list(outpaint(generate, "a star", image(), border, 32, seed=5, sampling=SAMPLING))
    assert len(grown) == 2 * 5 - 1, (
        "windows in two rows of the picture's own, three to the right and one to the left"
    )
    for canvas in grown:
        assert canvas.shape == (64 + 16, 20 + 64 + 80, 3)
        np.testing.assert_array_equal(canvas[:64, 20:84], image())
    painted = grown[-1].astype(int)
    assert (painted.reshape(-1, 3) != 0).any(axis=1).mean() > 0.99, "no place is left out"
    again = list(outpaint(generate, "a star", image(), border, 32, seed=5, sampling=SAMPLING))[-1]
    np.testing.assert_array_equal(again, grown[-1])


def test_nothing_to_add_adds_nothing(generate: ImageGenerator) -> None:
    assert not list(outpaint(generate, "a star", image(), Border(), 32, sampling=SAMPLING))


def test_each_window_of_a_panorama_holds_the_last_one(generate: ImageGenerator) -> None:
    captions = ["a small red star", "a large blue circle", "a star"]
    wide = list(panorama(generate, captions, 24, seed=5, sampling=SAMPLING))
    assert [canvas.shape for canvas in wide] == [(64, 64, 3), (64, 104, 3), (64, 144, 3)]
    np.testing.assert_array_equal(wide[0], generate(captions[:1], [5], SAMPLING)[0])
    for before, after in pairwise(wide):
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    other = list(panorama(generate, [*captions[:2], "a circle"], 24, seed=5, sampling=SAMPLING))
    np.testing.assert_array_equal(other[1], wide[1])
    assert (other[2] != wide[2]).any(), "each window has its caption"

    continued = list(panorama(generate, captions[:2], 24, image(), seed=5, sampling=SAMPLING))
    assert [canvas.shape for canvas in continued] == [(64, 104, 3), (64, 144, 3)]
    np.testing.assert_array_equal(continued[-1][:, :64], image())
    assert (continued[-1][:, 64:] != wide[-1][:, 64:]).any(), "it goes on from what is there"


def test_an_overlap_or_a_border_that_cannot_be_is_refused(generate: ImageGenerator) -> None:
    for overlap in (0, 64, 90):
        with pytest.raises(WindowError, match=f"overlap by 1 to 63, got {overlap}"):
            list(panorama(generate, ["a star"], overlap))
        with pytest.raises(WindowError, match=f"overlap by 1 to 63, got {overlap}"):
            list(outpaint(generate, "a star", image(), Border(right=8), overlap))
    with pytest.raises(WindowError, match="0 pixels or more, got -8"):
        list(outpaint(generate, "a star", image(), Border(top=-8), 32))
