"""A small set with the columns concept and style: the shapes of the built-in data set in three
drawing styles, with some pairs of concept and style held out of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_catalog.shapes import dataset as shapes
from tests.support.image_sets import CaptionedImage, write_tars
from tests.support.images import encoded

STYLES = ("plain", "negative", "grey")
HELD_OUT_EVERY = 5


def write_styles(folder: Path, concepts: int, styles: Sequence[str] = STYLES) -> Path:
    """A tar of each concept in each style; every fifth concept is held out in one style."""
    drawings = list(shapes.drawings(concepts, held_out=False, seed=5))
    images = []
    for number, drawing in enumerate(drawings):
        concept = f"thing {number}"
        for place, style in enumerate(styles):
            held_out = number % HELD_OUT_EVERY == 0 and number // HELD_OUT_EVERY % 3 == place
            columns = {
                "concept": concept,
                "style": style,
                "split": "held_out" if held_out else "train",
            }
            content = encoded(Image.fromarray(_drawn(drawing.pixels(), style)), "PNG")
            name = f"{number:04d}_{place}.png"
            images.append(CaptionedImage(name, content, f"{concept}, {style}", columns))
    return write_tars(folder, images, len(images))


def _drawn(pixels: NDArray[np.uint8], style: str) -> NDArray[np.uint8]:
    if style == "negative":
        return np.invert(pixels)
    if style == "grey":
        grey: NDArray[np.uint8] = pixels.mean(2, keepdims=True).repeat(3, axis=2).astype(np.uint8)
        return grey
    return pixels
