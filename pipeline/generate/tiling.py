"""Squares of a model's size on a canvas that is larger: where each begins, in the order in which
they are painted. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


class WindowError(ValueError):
    """Borders or an overlap that give no windows; the message says what would."""

    exit_code = 2


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


def usual_overlap(edge: int) -> int:
    """Pixels, 3/8 of a window: room enough for something new, which half cuts off more often."""
    return edge * 3 // 8


def windows_around(edge: int, border: Border, overlap: int) -> list[Window]:
    """Of a picture [edge, edge] with a border: from the picture on to the right and left, row for
    row down and up. Raises WindowError."""
    rows = _outwards(border.top, border.bottom, edge, overlap)
    columns = _outwards(border.left, border.right, edge, overlap)
    return [Window(row, column) for row in rows for column in columns][1:]


def check_overlap(overlap: int, edge: int) -> None:
    """Raise WindowError where windows would not go on, or share nothing."""
    if not 0 < overlap < edge:
        raise WindowError(f"windows of {edge} pixels overlap by 1 to {edge - 1}, got {overlap}")


def _outwards(before: int, after: int, edge: int, overlap: int) -> list[int]:
    """Where windows begin along one side: at the picture itself, then step by step to the end, then
    to the start."""
    check_overlap(overlap, edge)
    if before < 0 or after < 0:
        raise WindowError(f"a picture is painted on by 0 pixels or more, got {min(before, after)}")
    step = edge - overlap
    onwards = [before + min(moved, after) for moved in range(step, after + step, step)]
    back = [max(before - moved, 0) for moved in range(step, before + step, step)]
    return [before, *onwards, *back]
