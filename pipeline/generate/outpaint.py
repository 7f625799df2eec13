"""Outpainting and panoramas: images larger than the model's own, painted window by window.

Each window keeps what earlier windows have painted and paints the rest.

    first window   second         third
    [    known    |  painted  ]
                  [   known   |  painted  ]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import check_image, edge_of
from pipeline.generate.inpaint import inpaint
from pipeline.generate.tiling import Border, Window, check_overlap, windows_around
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings


def outpaint(
    generate: ImageGenerator,
    caption: str,
    image: NDArray[np.uint8],
    border: Border,
    overlap: int,
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
) -> Iterator[NDArray[np.uint8]]:
    """Extend an image [h, w, 3] of the model's size at its sides; the image itself is unchanged.

    Yields the canvas, uint8 [top + h + bottom, left + w + right, 3], after each window.

    Raises:
        InputImageError: the image does not have the model's size.
        WindowError: the border or the overlap is not possible.
    """
    check_image(generate, image)
    edge = edge_of(generate)
    windows = windows_around(edge, border, overlap)
    inside = ((border.top, border.bottom), (border.left, border.right))
    canvas = np.pad(image, (*inside, (0, 0)))
    known = np.pad(np.ones((edge, edge), np.bool_), inside)
    painter = _WindowPainter(generate, seed, sampling, negative)
    yield from painter.paint([caption] * len(windows), canvas, known, windows)


def panorama(
    generate: ImageGenerator,
    captions: Sequence[str],
    overlap: int,
    image: NDArray[np.uint8] | None = None,
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
) -> Iterator[NDArray[np.uint8]]:
    """Generate a wide image from left to right, with one window for each caption.

    Yields the part painted so far, uint8 [h, w, 3], after each window. If an image [h, w, 3] of the
    model's size is passed, the panorama continues it to the right.

    Raises:
        InputImageError: the image does not have the model's size.
        WindowError: the overlap is not possible.
    """
    edge = edge_of(generate)
    check_overlap(overlap, edge)
    first = 0 if image is None else 1
    windows = [Window(0, (first + number) * (edge - overlap)) for number in range(len(captions))]
    canvas = np.zeros((edge, windows[-1].left + edge, 3), np.uint8)
    known = np.zeros(canvas.shape[:2], np.bool_)
    if image is not None:
        check_image(generate, image)
        canvas[:, :edge], known[:, :edge] = image, True
    painter = _WindowPainter(generate, seed, sampling, negative)
    painted = painter.paint(captions, canvas, known, windows)
    for window, whole in zip(windows, painted, strict=True):
        yield whole[:, : window.left + edge]


@dataclass(frozen=True, slots=True)
class _WindowPainter:
    """The model and the settings that all windows of a canvas share."""

    generate: ImageGenerator
    seed: int
    sampling: SamplingSettings
    negative: str

    def paint(
        self,
        captions: Sequence[str],
        canvas: NDArray[np.uint8],
        known: NDArray[np.bool_],
        windows: Sequence[Window],
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the canvas [h, w, 3] after each window.

        A window paints the pixels that are not yet known [h, w], by its caption and with the noise
        of seed + i for window i.
        """
        edge, canvas, known = edge_of(self.generate), canvas.copy(), known.copy()
        how = self.sampling, self.negative
        for number, (window, caption) in enumerate(zip(windows, captions, strict=True)):
            place = slice(window.top, window.top + edge), slice(window.left, window.left + edge)
            paint, seeds = ~known[place], [self.seed + number]
            if paint.all():
                canvas[place] = self.generate([caption], seeds, *how)[0]
            elif paint.any():
                canvas[place] = inpaint(
                    self.generate, [caption], canvas[place], paint, seeds, *how
                )[0]
            known[place] = True
            yield canvas.copy()
