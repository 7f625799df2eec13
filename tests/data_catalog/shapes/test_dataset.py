import itertools
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES, Description
from data_catalog.shapes.grader import Grade, grade
from data_catalog.shapes.server import serve_shapes


@pytest.mark.slow
def test_the_grader_reads_drawn_pictures() -> None:
    drawings = [
        *shapes.drawings(600, held_out=False, seed=5),
        *shapes.drawings(200, held_out=True, seed=5),
    ]
    right = [all(grade(d.pixels()).agrees(d.attributes).values()) for d in drawings]
    assert np.mean(right) >= 0.99


def test_the_grader_refuses_what_is_no_clean_shape() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert grade(noise).shape is None
    empty = np.full((64, 64, 3), 240, np.uint8)
    assert grade(empty) == Grade(None, None, None, None, "white")
    first, second = (
        shapes.draw(shapes.Attributes("small", "red", "circle", position, "white"), rng)
        for position in ("top left", "bottom right")
    )
    assert grade(np.minimum(first, second)).shape is None, "two shapes are not one"


def test_the_grader_tells_each_attribute_from_its_neighbours() -> None:
    base = shapes.Attributes("small", "red", "square", "center", "blue")
    pixels = shapes.draw(base, np.random.default_rng(1))
    changed = {
        "size": "large",
        "colour": "green",
        "shape": "cross",
        "position": "top left",
        "background": "white",
    }
    for name, value in changed.items():
        verdict = grade(pixels).agrees(replace(base, **{name: value}))
        assert [n for n, agrees in verdict.items() if not agrees] == [name]


def test_the_grader_leaves_out_what_a_caption_leaves_open() -> None:
    star = shapes.Attributes("small", "red", "star", "center", "blue")
    seen = grade(shapes.draw(star, np.random.default_rng(1)))
    assert seen.agrees(Description(shape="star", background="green")) == {
        "shape": True,
        "background": False,
    }
    assert seen.agrees(Description()) == {}


def test_a_fifth_of_the_combinations_is_held_out_and_every_pair_of_values_is_trained_on() -> None:
    everything = shapes.combinations()
    trained = [attributes for attributes in everything if not attributes.held_out]
    assert len(everything) == 1500
    assert len(trained) == 1200
    for a, b in itertools.combinations(ATTRIBUTE_NAMES, 2):
        possible = {(getattr(x, a), getattr(x, b)) for x in everything}
        assert {(getattr(x, a), getattr(x, b)) for x in trained} == possible


def test_every_choice_of_attributes_is_left_open_about_equally_often() -> None:
    drawings = shapes.drawings(3100, held_out=False, seed=4)
    counts = Counter(left_open(drawing.partial_caption(1)) for drawing in drawings)
    assert len(counts) == 31
    assert () not in counts
    assert 60 < min(counts.values()) < max(counts.values()) < 145


def left_open(caption: str) -> tuple[str, ...]:
    description = shapes.parse_caption(caption)
    assert description
    return description.left_open


def test_the_server_draws_what_a_url_says_and_refuses_others() -> None:
    drawing = next(shapes.drawings(1, held_out=False))
    with serve_shapes() as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
        assert opener.open(drawing.url).read() == drawing.png()
        request = urllib.request.Request(f"http://{shapes.HOST}/no/such/drawing.png")
        try:
            status = opener.open(request).status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
    assert status == 404
    assert shapes.Drawing.from_url(drawing.url) == drawing
