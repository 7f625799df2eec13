"""Sizes in bytes as text, in the unit that people would use."""

from __future__ import annotations


def size(count: float) -> str:
    """950 kB, 12.3 GB: bytes with a unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
