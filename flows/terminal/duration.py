"""Durations as text, in the unit that people would use."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """50 s, 7 min, 2 h 05 min or 31 h; never a number of hours that rounds to 0."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 24:
        return f"{seconds / 3600:.0f} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"
