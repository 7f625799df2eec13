"""Pictures larger than what the model draws, window by window: each holds what the ones before have painted, and
paints the rest. Knows nothing of files.

    first window   second         third
    [    known    |  painted  ]
                  [   known   |  painted  ]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.image_to_image import PictureError, check_picture, edge_of
from pipeline.inpaint import inpaint
from pipeline.sample import Generator
from tld_model.sampling import USUAL, Sampling


@dataclass(frozen=True, slots=True)
class Border:
    """Pixels to add at each side of a picture."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A square of the model's size on a canvas: its first row and column, in pixels."""

    top: int
    left: int


def outpaint(
    generate: Generator,
    caption: str,
    picture: NDArray[np.uint8],
    border: Border,
    overlap: int,
    seed: int = 0,
    sampling: Sampling = USUAL,
    negative: str = "",
) -> Iterator[NDArray[np.uint8]]:
    """A picture [h, w, 3] of the model's size, painted on at its sides: the canvas uint8 [top + h + bottom,
    left + w + right, 3] after each window. The picture itself stays as it is. Raises PictureError."""
    check_picture(generate, picture)
    edge = edge_of(generate)
    rows = _outwards(border.top, border.bottom, edge, overlap)
    columns = _outwards(border.left, border.right, edge, overlap)
    inside = ((border.top, border.bottom), (border.left, border.right))
    canvas = np.pad(picture, (*inside, (0, 0)))
    known = np.pad(np.ones((edge, edge), np.bool_), inside)
    windows = [Window(row, column) for row in rows for column in columns][1:]
    yield from paint_windows(generate, [caption] * len(windows), canvas, known, windows, seed, sampling, negative)


def panorama(
    generate: Generator,
    captions: Sequence[str],
    overlap: int,
    picture: NDArray[np.uint8] | None = None,
    seed: int = 0,
    sampling: Sampling = USUAL,
    negative: str = "",
) -> Iterator[NDArray[np.uint8]]:
    """A wide picture, painted on to the right, a window for each caption: what there is of it, uint8 [h, w, 3], after
    each. It goes on from a picture [h, w, 3] of the model's size, where there is one. Raises PictureError."""
    edge = edge_of(generate)
    _check_overlap(overlap, edge)
    first = 0 if picture is None else 1
    windows = [Window(0, (first + number) * (edge - overlap)) for number in range(len(captions))]
    canvas = np.zeros((edge, windows[-1].left + edge, 3), np.uint8)
    known = np.zeros(canvas.shape[:2], np.bool_)
    if picture is not None:
        check_picture(generate, picture)
        canvas[:, :edge], known[:, :edge] = picture, True
    painted = paint_windows(generate, captions, canvas, known, windows, seed, sampling, negative)
    for window, whole in zip(windows, painted, strict=True):
        yield whole[:, : window.left + edge]


def usual_overlap(generate: Generator) -> int:
    """Pixels, 3/8 of a window: room enough for something new, which half cuts off more often."""
    return edge_of(generate) * 3 // 8


def paint_windows(
    generate: Generator,
    captions: Sequence[str],
    canvas: NDArray[np.uint8],
    known: NDArray[np.bool_],
    windows: Sequence[Window],
    seed: int,
    sampling: Sampling,
    negative: str,
) -> Iterator[NDArray[np.uint8]]:
    """The canvas [h, w, 3] after each window, in which what is not known [h, w] is painted by its caption; window i
    has the noise of seed + i."""
    edge, canvas, known = edge_of(generate), canvas.copy(), known.copy()
    for number, (window, caption) in enumerate(zip(windows, captions, strict=True)):
        place = slice(window.top, window.top + edge), slice(window.left, window.left + edge)
        paint = ~known[place]
        if paint.all():
            canvas[place] = generate([caption], [seed + number], sampling, negative)[0]
        elif paint.any():
            canvas[place] = inpaint(generate, [caption], canvas[place], paint, [seed + number], sampling, negative)[0]
        known[place] = True
        yield canvas.copy()


def _outwards(before: int, after: int, edge: int, overlap: int) -> list[int]:
    """Where windows begin along one side: at the picture itself, then step by step to the end, then to the start."""
    _check_overlap(overlap, edge)
    if before < 0 or after < 0:
        raise PictureError(f"a picture is painted on by 0 pixels or more, got {min(before, after)}")
    step = edge - overlap
    onwards = [before + min(moved, after) for moved in range(step, after + step, step)]
    back = [max(before - moved, 0) for moved in range(step, before + step, step)]
    return [before, *onwards, *back]


def _check_overlap(overlap: int, edge: int) -> None:
    if not 0 < overlap < edge:
        raise PictureError(f"windows of {edge} pixels overlap by 1 to {edge - 1}, got {overlap}")
