"""Deduplication of images by file hash and by perceptual hash. The first of each group is kept.

Both comparisons are exact up to collisions of 64-bit hashes: with 20 million files, one false
duplicate is expected in 100,000 sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
# Bands of a hash. Two hashes that differ in fewer bits than there are bands agree in one band.
_BANDS = 4
MOST_BITS = _BANDS - 1
_CHUNK = 1024  # hashes that are compared with their group at once

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For each image, the index of the earlier image that it duplicates, or -1."""

    same_file: NDArray[np.int64]
    looks_the_same: NDArray[np.int64]


def find_duplicates(files: Hashes, looks: Hashes | None, most_bits: int) -> Duplicates:
    """Find duplicates by the first 64 bits of the files' SHA-256, and by perceptual hashes that
    differ in at most `most_bits` of 64 bits (0 to 3).

    An image whose only near duplicates are dropped themselves is kept.
    """
    if not 0 <= most_bits <= MOST_BITS:
        raise ValueError(f"perceptual hashes are compared up to {MOST_BITS} bits, got {most_bits}")
    same_file = _first_of_equals(files)
    no_earlier = np.full(len(files), -1)
    if looks is None:
        return Duplicates(same_file, no_earlier)
    distinct_files = np.flatnonzero(same_file < 0)
    earlier = no_earlier
    earlier[distinct_files] = _in_whole_set(
        distinct_files, _first_near(looks[distinct_files], most_bits)
    )
    return Duplicates(same_file, earlier)


def _in_whole_set(subset: NDArray[np.int64], within_subset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices within a subset of the images -> indices within all images."""
    return np.where(within_subset < 0, -1, subset[within_subset])


def _first_of_equals(values: Hashes) -> NDArray[np.int64]:
    """For each value, the index of its first occurrence, or -1 if it is the first itself."""
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    earlier = first[group]
    return np.where(earlier == np.arange(len(values)), -1, earlier)


def _first_near(looks: Hashes, most_bits: int) -> NDArray[np.int64]:
    """For each image, an earlier kept image within `most_bits`, or -1."""
    distinct, first, group = np.unique(looks, return_index=True, return_inverse=True)
    earlier = np.where(first[group] == np.arange(len(looks)), -1, first[group])
    if not most_bits:
        return earlier
    near: dict[int, list[int]] = {}
    for a, b in _near_pairs(distinct, most_bits):
        older, newer = sorted((int(first[a]), int(first[b])))
        near.setdefault(newer, []).append(older)
    for newer in sorted(near):
        earlier[newer] = next((older for older in sorted(near[newer]) if earlier[older] < 0), -1)
    # An exact duplicate of a dropped hash duplicates what the dropped one duplicates.
    through = np.where(earlier >= 0, earlier, 0)
    return np.where((earlier >= 0) & (earlier[through] >= 0), earlier[through], earlier)


def _near_pairs(distinct: Hashes, most_bits: int) -> Iterator[tuple[int, int]]:
    """All pairs of distinct hashes within `most_bits`. Such hashes agree in at least one band, so
    only hashes that share a band are compared."""
    width = HASH_BITS // _BANDS
    for band in range(_BANDS):
        values = (distinct >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(values, kind="stable")
        edges = np.flatnonzero(np.diff(values[order])) + 1
        for members in np.split(order, edges):
            for start in range(0, len(members), _CHUNK):
                chunk = members[start : start + _CHUNK]
                bits = np.bitwise_count(distinct[chunk, None] ^ distinct[None, members[start:]])
                for i, j in zip(*np.nonzero((bits <= most_bits) & (bits > 0)), strict=True):
                    yield int(chunk[i]), int(members[start + j])
