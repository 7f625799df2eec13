"""Curves in a line of text, of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP = "·"  # a value that is no number, as of a training that diverges


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve of at most `width` characters, each the mean of equally many values."""
    count = min(width, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    means = [math.fsum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return _GAP * count
    low, span = min(finite), max(finite) - min(finite)
    return "".join(_block((mean - low) / span if span else 0.0) for mean in means)


def _block(height: float) -> str:
    """The block of a height between 0 and 1."""
    if not math.isfinite(height):
        return _GAP
    return _BLOCKS[min(len(_BLOCKS) - 1, int(height * len(_BLOCKS)))]
