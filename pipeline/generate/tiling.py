"""Positions of overlapping windows on a canvas larger than the model's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

# A bound for what is read from a keyboard or a disk.
_Pixels = Annotated[int, Field(ge=0, le=4096)]


class WindowError(ValueError):
    """No windows are possible with this border or overlap; the message says what is allowed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Border:
    """Pixels to add at each side of an image."""

    left: _Pixels = 0
    right: _Pixels = 0
    top: _Pixels = 0
    bottom: _Pixels = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A square of the model's size on a canvas: its first row and column, in pixels."""

    top: int
    left: int


def usual_overlap(edge: int) -> int:
    """Default overlap, 3/8 of a window in pixels.

    It leaves room for new objects, which an overlap of half a window cuts off more often.
    """
    return edge * 3 // 8


def windows_around(edge: int, border: Border, overlap: int) -> list[Window]:
    """Windows around an image [edge, edge] with a border, in the order in which they are painted.

    In each row they go from the image to the right end, then to the left end. The rows go from
    the image to the bottom, then to the top. Raises WindowError if the border or the overlap is not
    possible.
    """
    rows = _outwards(border.top, border.bottom, edge, overlap)
    columns = _outwards(border.left, border.right, edge, overlap)
    return [Window(row, column) for row in rows for column in columns][1:]


def check_overlap(overlap: int, edge: int) -> None:
    """Raise WindowError if consecutive windows would coincide or share no pixels."""
    if not 0 < overlap < edge:
        raise WindowError(
            f"windows of {edge} pixels must overlap by 1 to {edge - 1}, got {overlap}"
        )


def _outwards(before: int, after: int, edge: int, overlap: int) -> list[int]:
    """Starts of windows along one axis: the image itself, then on to the end, then to the start."""
    check_overlap(overlap, edge)
    if before < 0 or after < 0:
        raise WindowError(f"an image is extended by 0 pixels or more, got {min(before, after)}")
    step = edge - overlap
    onwards = [before + min(moved, after) for moved in range(step, after + step, step)]
    back = [max(before - moved, 0) for moved in range(step, before + step, step)]
    return [before, *onwards, *back]
