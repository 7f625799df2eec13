"""The grader of the shapes data set: reads the five attributes of an image back from pixels.

It uses no model. A blurred, doubled or missing shape is graded as wrong, a figure between two
shapes as the one that overlaps it most.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_catalog.shapes.captions import ATTRIBUTE_NAMES, Description
from data_catalog.shapes.dataset import (
    COLOURS,
    EDGE,
    POSITIONS,
    SHAPES,
    SIZES,
    Attributes,
    Pixels,
    coverage,
)

# Tolerances of the grader.
_MAX_COLOUR_DISTANCE = 75.0  # Euclidean, RGB
_MIN_CONTRAST = 40.0
_MIN_OVERLAP = 0.72  # soft intersection over union with the best template


@dataclass(frozen=True, slots=True)
class Grade:
    """The attributes that the grader reads from an image. None means "not recognized"."""

    size: str | None
    colour: str | None
    shape: str | None
    position: str | None
    background: str | None

    def agrees(self, expected: Description | Attributes) -> dict[str, bool]:
        """Whether each attribute that is named is the expected one."""
        return {
            name: getattr(self, name) == value
            for name in ATTRIBUTE_NAMES
            if (value := getattr(expected, name)) is not None
        }


def grade(pixels: Pixels) -> Grade:
    """Read the five attributes back from uint8 [64, 64, 3] pixels.

    The background is the median of the border, and the figure is whatever differs from it. A figure
    is accepted as a shape only if one template, fitted to its centroid and area, overlaps it well.
    """
    if pixels.shape != (EDGE, EDGE, 3):
        raise ValueError(
            f"the grader reads images of shape [{EDGE}, {EDGE}, 3], got {list(pixels.shape)}"
        )
    image = pixels.astype(np.float64)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    paper = np.median(border, axis=0)
    background = _nearest_colour(paper)

    distance = np.linalg.norm(image - paper, axis=-1)
    core = distance > max(_MIN_CONTRAST, 0.6 * float(np.quantile(distance, 0.99)))
    if core.sum() < 12:
        return Grade(None, None, None, None, background)
    ink = np.median(image[core], axis=0)
    direction = ink - paper
    alpha = np.clip((image - paper) @ direction / (direction @ direction), 0, 1)
    alpha[alpha < 0.15] = 0  # what blur and quantization leave on the background

    total = alpha.sum()
    rows, columns = np.mgrid[:EDGE, :EDGE] + 0.5
    x, y = float((alpha * columns).sum() / total), float((alpha * rows).sum() / total)
    fits = {shape: _fit(alpha, shape, x, y, float(total)) for shape in SHAPES}
    shape, (overlap, radius) = max(fits.items(), key=lambda item: item[1][0])
    position = min(POSITIONS, key=lambda name: math.dist(POSITIONS[name], (x, y)))
    if overlap < _MIN_OVERLAP:
        return Grade(None, _nearest_colour(ink), None, position, background)
    size = min(SIZES, key=lambda name: abs(SIZES[name] - radius))
    return Grade(size, _nearest_colour(ink), shape, position, background)


def _nearest_colour(rgb: NDArray[np.float64]) -> str | None:
    name = min(COLOURS, key=lambda name: math.dist(COLOURS[name], rgb))
    return name if math.dist(COLOURS[name], rgb) <= _MAX_COLOUR_DISTANCE else None


def _fit(
    alpha: NDArray[np.float64], shape: str, x: float, y: float, area: float
) -> tuple[float, float]:
    """The best soft overlap between the figure and a shape of this centroid and area, and the
    radius of that shape."""
    radius = math.sqrt(area / _unit_area(shape))
    dx, dy = _centroid_offset(shape)
    best = 0.0
    for shift_x, shift_y in itertools.product((-0.5, 0.0, 0.5), repeat=2):
        template = coverage(shape, x - dx * radius + shift_x, y - dy * radius + shift_y, radius)
        best = max(
            best, float(np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum())
        )
    return best, radius


@cache
def _unit_area(shape: str) -> float:
    return float(coverage(shape, EDGE / 2, EDGE / 2, 24.0).sum() / 24.0**2)


@cache
def _centroid_offset(shape: str) -> tuple[float, float]:
    """The offset from the circle's centre to the shape's centroid, in radii."""
    alpha = coverage(shape, EDGE / 2, EDGE / 2, 24.0)
    rows, columns = np.mgrid[:EDGE, :EDGE] + 0.5
    offset = np.array([(alpha * columns).sum(), (alpha * rows).sum()]) / alpha.sum() - EDGE / 2
    return float(offset[0] / 24.0), float(offset[1] / 24.0)
