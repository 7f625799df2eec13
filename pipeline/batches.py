"""Encodings -> tensors: which pairs are held out, in what order the others come, and their dequantization.

The order follows from the seed and the step alone, so that a resumed training sees what an uninterrupted
one would. Knows nothing of noise or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.encodings import EncodedArrays, read_arrays, read_rows, unmap_pages
from data_catalog.manifest import Manifest
from tld_model.quantize import Quantization, dequantize

HELD_OUT = "held_out"  # in the table's split column
_DECIDED = 2.0  # above every hash: the split column has decided


class SplitError(ValueError):
    """Encodings that leave nothing to train on, or nothing held out."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs as the model sees them."""

    latents: Tensor  # scaled latents, float32 [b, c, z, z]
    text: Tensor  # pooled text embeddings, float32 [b, d]


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """All pairs of some encodings, memory-mapped, addressed by their number."""

    shards: tuple[EncodedArrays, ...]
    starts: NDArray[np.int64]  # number of the first pair of each shard
    quantization: Quantization

    def take(self, numbers: NDArray[np.int64], device: str = "cpu") -> Batch:
        """The pairs of these numbers, in this order. They travel to the device as they are stored, a quarter
        or half of their size as numbers, and are dequantized there."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        first = self.shards[int(shard_of[0])]
        latents = np.empty((len(numbers), *first.latents.shape[1:]), first.latents.dtype)
        text = np.empty((len(numbers), first.text.shape[1]), np.float16)
        for index in np.unique(shard_of):
            here = shard_of == index
            rows = numbers[here] - self.starts[index]
            latents[here] = self.shards[index].latents[rows]
            text[here] = self.shards[index].text[rows]
            unmap_pages(self.shards[index])
        stored = torch.from_numpy(latents).to(device, non_blocking=True)
        return Batch(
            dequantize(stored, self.quantization), torch.from_numpy(text).to(device, non_blocking=True).float()
        )

    def keys(self, numbers: NDArray[np.int64]) -> list[str]:
        """The keys of the pairs of these numbers."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = zip(shard_of, numbers - self.starts[shard_of], strict=True)
        return [self.shards[shard].key[row].decode() for shard, row in rows]


@dataclass(frozen=True, slots=True)
class Split:
    """Which pairs train, which are held out, and what the held-out ones say."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    held_out_captions: list[str]


def open_pairs(encodings: Manifest) -> EncodedPairs:
    """Map the encodings of a manifest into memory."""
    filled = [shard for shard in encodings.shards if shard.rows]
    arrays = tuple(read_arrays(encodings.file(f"{shard.name}.npz")) for shard in filled)
    starts = np.cumsum([0, *(len(shard.key) for shard in arrays[:-1])], dtype=np.int64)
    told = encodings.figures["quantization"]
    clip = told["clip"]
    quantization = Quantization(tuple(clip) if isinstance(clip, list) else clip, told.get("dtype", "uint8"))
    return EncodedPairs(arrays, starts, quantization)


def split_pairs(encodings: Manifest, held_out_fraction: float) -> Split:
    """Divide pairs by the table's split column, or else by a hash of the key. Raises SplitError.

    Keys and captions are read a shard at a time: a million pairs leave nine bytes each in memory, and the held-out
    captions.
    """
    names = [shard.name for shard in encodings.shards if shard.rows]
    parts = [_hashes_or_split(read_rows(encodings.folder, name, ["key", "split"])) for name in names]
    hashes, held_out = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    held_out |= hashes < held_out_fraction
    undecided = hashes < _DECIDED
    if not held_out.any() and undecided.any() and held_out_fraction > 0 and len(hashes) > 1:
        held_out[hashes.argmin()] = True
    if not held_out.any():
        raise SplitError("no pair is held out; raise train.held_out_fraction, or give the table a split column")
    if held_out.all():
        raise SplitError(
            f"all {len(hashes)} pairs are held out, none is left to train on; lower train.held_out_fraction"
        )
    captions = _captions(encodings, names, np.split(held_out, np.cumsum([len(part[0]) for part in parts])[:-1]))
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), captions)


def _hashes_or_split(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each row the hash of its key, _DECIDED where the split column decides; and whether that holds it out."""
    split = np.array(rows["split"].fill_null("").to_pylist())
    hashes = np.array([_key_hash(key) for key in rows["key"].to_pylist()])
    return np.where(split == "", hashes, _DECIDED), split == HELD_OUT


def _captions(encodings: Manifest, names: list[str], chosen: list[NDArray[np.bool_]]) -> list[str]:
    """The captions of the chosen rows of each shard, in order."""
    return [
        caption
        for name, rows in zip(names, chosen, strict=True)
        if rows.any()
        for caption in read_rows(encodings.folder, name, ["caption"])["caption"].filter(pa.array(rows)).to_pylist()
    ]


def is_held_out(key: str, split: str, fraction: float) -> bool:
    """Whether a pair is kept out of training; the same answer for the same key, whatever else is there."""
    return split == HELD_OUT if split else _key_hash(key) < fraction


def _key_hash(key: str) -> float:
    """A number in [0, 1) that follows from the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def batch_numbers(train: NDArray[np.int64], batch_size: int, seed: int, first_step: int) -> Iterator[NDArray[np.int64]]:
    """Endless batches of pair numbers from a step on: epoch after epoch, each in an order of its own."""
    position = first_step * batch_size
    epoch, order = -1, train
    while True:
        chosen: list[NDArray[np.int64]] = []
        wanted = batch_size
        while wanted:
            if position // len(train) != epoch:
                epoch = position // len(train)
                order = np.random.default_rng((seed, epoch)).permutation(train)
            start = position % len(train)
            part = order[start : start + wanted]
            chosen.append(part)
            position += len(part)
            wanted -= len(part)
        yield np.concatenate(chosen)
