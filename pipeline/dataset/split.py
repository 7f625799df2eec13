"""The split into training and held-out pairs, by the table's split column or a hash of the key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_catalog.encodings import read_rows
from data_catalog.storage.manifest import Manifest

HELD_OUT = "held_out"  # in the table's split column
_FEWEST_HELD_OUT = 16  # without a warning
_DECIDED = 2.0  # above every hash: marks rows that the split column decides


class SplitError(ValueError):
    """A split without any training pair or without any held-out pair."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Split:
    """The numbers of training and held-out pairs, and the captions of the held-out ones."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    held_out_captions: list[str]


def split_pairs(encodings: Manifest, held_out_fraction: float) -> Split:
    """Split pairs by the table's split column or, where it is empty, by a hash of the key.

    Keys and captions are read shard by shard, so only nine bytes per pair and the held-out captions
    stay in memory. Raises SplitError if all pairs would be on one side.
    """
    names = [shard.name for shard in encodings.shards if shard.rows]
    if not names:
        raise SplitError(f"{encodings.folder} contains no pairs, so there is nothing to train on")
    parts = [hashes_or_split(read_rows(encodings.folder, name, ["key", "split"])) for name in names]
    hashes, held_out = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    held_out = held_out_rows(hashes, held_out, held_out_fraction)
    if held_out.all() or not held_out.any():
        raise SplitError(_one_sided(held_out, hashes < _DECIDED, held_out_fraction))
    captions = _captions(
        encodings, names, np.split(held_out, np.cumsum([len(part[0]) for part in parts])[:-1])
    )
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), captions)


def held_out_rows(
    hashes: NDArray[np.float64], by_column: NDArray[np.bool_], held_out_fraction: float
) -> NDArray[np.bool_]:
    """Which pairs are held out, of what `hashes_or_split` says of all of them."""
    held_out = by_column | (hashes < held_out_fraction)
    undecided = hashes < _DECIDED
    if not held_out.any() and undecided.any() and held_out_fraction > 0 and len(hashes) > 1:
        held_out[hashes.argmin()] = True
    return held_out


def few_held_out(split: Split, held_out_fraction: float) -> str:
    """A warning if so few pairs are held out that scores of them say little, or ""."""
    held_out = len(split.held_out)
    if held_out >= _FEWEST_HELD_OUT:
        return ""
    return (
        f"only {held_out} of {held_out + len(split.train):,} pairs are held out of training, so "
        f"the scores will say little; raise train.held_out_fraction (now {held_out_fraction:g}) "
        "or mark more rows 'held_out' in the table's split column (download.split_column)"
    )


def _one_sided(
    held_out: NDArray[np.bool_], undecided: NDArray[np.bool_], held_out_fraction: float
) -> str:
    """Why all pairs are held out of training, or none, and what to change."""
    pairs = f"all {len(held_out):,} pairs"
    if len(held_out) == 1:
        return "there is only one pair; training needs one to train on and one to hold out"
    if held_out.all():
        if undecided.any():
            return f"{pairs} are held out of training; lower train.held_out_fraction"
        return (
            f"the split column of the table holds {pairs} out of training; mark some rows 'train'"
        )
    if undecided.any() and held_out_fraction == 0:
        return (
            "no pair is held out of training because train.held_out_fraction is 0; raise it, for "
            "example to 0.02: the model is evaluated on held-out pairs"
        )
    return (
        f"the split column of the table keeps {pairs} for training; mark some rows 'held_out', or "
        "remove download.split_column and let train.held_out_fraction choose"
    )


def hashes_or_split(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The hash of each row's key (_DECIDED if the split column decides), and whether the column
    holds the row out."""
    split = np.array(rows["split"].fill_null("").to_pylist())
    hashes = np.array([key_hash(key) for key in rows["key"].to_pylist()])
    return np.where(split == "", hashes, _DECIDED), split == HELD_OUT


def _captions(encodings: Manifest, names: list[str], chosen: list[NDArray[np.bool_]]) -> list[str]:
    """The captions of the chosen rows of each shard, in order."""
    return [
        caption
        for name, rows in zip(names, chosen, strict=True)
        if rows.any()
        for caption in read_rows(encodings.folder, name, ["caption"])["caption"]
        .filter(pa.array(rows))
        .to_pylist()
    ]


def key_hash(key: str) -> float:
    """A hash of the key as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
