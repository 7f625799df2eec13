"""Grids of captioned images."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_FONT_SIZE = 11
_LINE = 13
_GAP = 8
_SMALLEST_TILE = 128  # pixels: smaller images are enlarged
_CAPTION_LINES = 3


def image_grid(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    columns: int | None = None,
    marks: Sequence[bool] | None = None,
) -> Image.Image:
    """Images [h, w, 3] in rows, each above its caption. `marks` frames correct images in green and
    wrong ones in red. Without `columns` the grid is about twice as wide as high, with full rows if
    the count allows it."""
    height, width = images[0].shape[:2]
    enlarge = max(1, -(-_SMALLEST_TILE // width))
    tile = (width * enlarge, height * enlarge)
    columns = min(columns or _full_rows(len(images)), len(images))
    rows = -(-len(images) // columns)
    cell = (tile[0] + _GAP, tile[1] + _CAPTION_LINES * _LINE + _GAP)
    canvas = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP + index % columns * cell[0], _GAP + index // columns * cell[1]
        canvas.paste(Image.fromarray(image).resize(tile, Image.Resampling.NEAREST), (x, y))
        if marks is not None:
            colour = (40, 160, 70) if marks[index] else (215, 40, 40)
            pen.rectangle((x - 2, y - 2, x + tile[0] + 1, y + tile[1] + 1), outline=colour, width=2)
        for line, text in enumerate(_wrapped(caption, tile[0])):
            pen.text((x, y + tile[1] + 2 + line * _LINE), text, fill=(60, 60, 60), font=_font())
    return canvas


def _full_rows(count: int) -> int:
    """The number of columns, near that of a grid twice as wide as high, with the fewest gaps."""
    ideal = math.sqrt(2 * count)
    near = range(max(1, round(ideal * 0.7)), round(ideal * 1.4) + 1)
    return min(near, key=lambda columns: (-count % columns, abs(columns - ideal)))


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _FONT_SIZE
    )


def _wrapped(caption: str, width: int) -> list[str]:
    """Break a caption into at most three lines of this width; an ellipsis marks what is cut off."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font().getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = lines[:_CAPTION_LINES]
    if len(lines) > len(shown):
        shown[-1] += " …"
    return [_cut(line, width) for line in shown]


def _cut(line: str, width: int) -> str:
    """Shorten a line to this width, with an ellipsis."""
    if _font().getlength(line) <= width:
        return line
    while line and _font().getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
