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

from data_catalog.encodings import EncodedArrays, EncodingsError, read_arrays, read_rows, unmap_pages
from data_catalog.storage.manifest import Manifest
from pipeline.dataset.caption_sampling import CaptionDraw
from tld_model.config import TextForm
from tld_model.quantize import Quantization, dequantize

HELD_OUT = "held_out"  # in the table's split column
_DECIDED = 2.0  # above every hash: the split column has decided


class SplitError(ValueError):
    """Encodings that leave nothing to train on, or nothing held out."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs as the model sees them."""

    latents: Tensor  # scaled latents, float32 [b, c, z, z]
    text: Tensor  # pooled text embeddings, float32 [b, d]; or token-level ones [b, l, t], zero where there is no token


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """All pairs of some encodings, memory-mapped, addressed by their number."""

    shards: tuple[EncodedArrays, ...]
    starts: NDArray[np.int64]  # number of the first pair of each shard
    quantization: Quantization
    form: TextForm = "pooled"
    longest_caption: int = 0  # tokens: all batches of token-level text have this length, as a compiler likes it
    caption_columns: tuple[str, ...] = ("caption",)  # the main one first
    draw: CaptionDraw | None = None  # where pairs have several captions, and epochs are told

    def take(self, numbers: NDArray[np.int64], device: str = "cpu", epochs: NDArray[np.int64] | None = None) -> Batch:
        """The pairs of these numbers, in this order, with their main captions; or with those drawn for the epoch in
        which each is [b]. They travel to the device as they are stored, a quarter or half of their size as numbers,
        and are dequantized there."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        first = self.shards[int(shard_of[0])]
        latents = np.empty((len(numbers), *first.latents.shape[1:]), first.latents.dtype)
        text = np.empty((len(numbers), *self._text_shape(first)), np.float16)
        chance = self.draw.uniform(numbers, epochs) if self.draw and epochs is not None else None
        for index in np.unique(shard_of):
            here = shard_of == index
            rows = numbers[here] - self.starts[index]
            shard = self.shards[index]
            latents[here] = shard.latents[rows]
            captions = self._captions(shard, rows, chance[here] if chance is not None else None)
            text[here] = shard.text[captions] if self.form == "pooled" else self._tokens(shard, captions)
            unmap_pages(shard)
        stored = torch.from_numpy(latents).to(device, non_blocking=True)
        return Batch(
            dequantize(stored, self.quantization), torch.from_numpy(text).to(device, non_blocking=True).float()
        )

    def keys(self, numbers: NDArray[np.int64]) -> list[str]:
        """The keys of the pairs of these numbers."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = zip(shard_of, numbers - self.starts[shard_of], strict=True)
        return [self.shards[shard].key[row].decode() for shard, row in rows]

    def _text_shape(self, shard: EncodedArrays) -> tuple[int, ...]:
        if self.form == "pooled":
            return shard.text.shape[1:]
        assert shard.tokens is not None, "open_pairs looked"
        return (self.longest_caption, shard.tokens.shape[1])

    def _captions(
        self, shard: EncodedArrays, rows: NDArray[np.int64], chance: NDArray[np.float64] | None
    ) -> NDArray[np.int64]:
        """Which rows of the text of a shard belong to some of its pairs [b]: the main ones, or drawn by chance."""
        if shard.text_start is None or shard.text_column is None:
            return rows
        first, end = shard.text_start[rows], shard.text_start[rows + 1]
        if self.draw is None or chance is None:
            return first
        places = first[:, None] + np.arange(len(self.caption_columns))  # [b, c]
        there = places < end[:, None]
        columns = np.full(places.shape, -1)
        columns[there] = shard.text_column[places[there]]
        return first + self.draw.choose(columns, chance)

    def _tokens(self, shard: EncodedArrays, captions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Token-level text of some captions of a shard, with zeros to the length of all: [b, l, t]"""
        assert shard.tokens is not None, "open_pairs looked"
        assert shard.token_start is not None, "open_pairs looked"
        first, end = shard.token_start[captions], shard.token_start[captions + 1]
        places = first[:, None] + np.arange(self.longest_caption)  # [b, l]
        there = places < end[:, None]
        padded = np.zeros((*places.shape, shard.tokens.shape[1]), np.float16)
        padded[there] = shard.tokens[places[there]]
        return padded


@dataclass(frozen=True, slots=True)
class Split:
    """Which pairs train, which are held out, and what the held-out ones say."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    held_out_captions: list[str]


def open_pairs(encodings: Manifest, form: TextForm = "pooled") -> EncodedPairs:
    """Map the encodings of a manifest into memory; their text comes in this form. Raises EncodingsError."""
    if form == "tokens" and "token_dim" not in encodings.figures:
        raise EncodingsError(f"{encodings.folder} holds no token-level text: set encode.text=tokens")
    filled = [shard for shard in encodings.shards if shard.rows]
    arrays = tuple(read_arrays(encodings.file(f"{shard.name}.npz")) for shard in filled)
    for shard, found in zip(filled, arrays, strict=True):
        if len(found.key) != shard.rows or _layout(found) != _layout(arrays[0]):
            raise EncodingsError(
                f"{encodings.folder / shard.name}.npz does not fit the manifest or the other shards: it has "
                f"{len(found.key)} rows of {shard.rows}, and latents {found.latents.shape[1:]} of {found.latents.dtype}"
            )
        if form == "tokens" and found.tokens is None:
            raise EncodingsError(f"{encodings.folder / shard.name}.npz holds no token-level text")
    starts = np.cumsum([0, *(len(shard.key) for shard in arrays[:-1])], dtype=np.int64)
    told = encodings.figures["quantization"]
    clip = told["clip"]
    quantization = Quantization(tuple(clip) if isinstance(clip, list) else clip, told.get("dtype", "uint8"))
    longest = encodings.figures.get("longest_caption", 0)
    columns = tuple(encodings.figures.get("caption_columns", ("caption",)))
    return EncodedPairs(arrays, starts, quantization, form, longest, columns)


def _layout(arrays: EncodedArrays) -> tuple[object, ...]:
    """What all shards have in common."""
    tokens = None if arrays.tokens is None else arrays.tokens.shape[1]
    return arrays.latents.shape[1:], arrays.latents.dtype, arrays.text.shape[1], tokens


def split_pairs(encodings: Manifest, held_out_fraction: float) -> Split:
    """Divide pairs by the table's split column, or else by a hash of the key. Raises SplitError.

    Keys and captions are read a shard at a time: a million pairs leave nine bytes each in memory, and the held-out
    captions.
    """
    names = [shard.name for shard in encodings.shards if shard.rows]
    if not names:
        raise SplitError(f"{encodings.folder} holds no pair, so there is nothing to train on")
    parts = [_hashes_or_split(read_rows(encodings.folder, name, ["key", "split"])) for name in names]
    hashes, held_out = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    held_out |= hashes < held_out_fraction
    undecided = hashes < _DECIDED
    if not held_out.any() and undecided.any() and held_out_fraction > 0 and len(hashes) > 1:
        held_out[hashes.argmin()] = True
    if held_out.all() or not held_out.any():
        raise SplitError(_one_sided(held_out, undecided, held_out_fraction))
    captions = _captions(encodings, names, np.split(held_out, np.cumsum([len(part[0]) for part in parts])[:-1]))
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), captions)


def _one_sided(held_out: NDArray[np.bool_], undecided: NDArray[np.bool_], held_out_fraction: float) -> str:
    """Why all pairs are held out of training, or none is, and what to change."""
    pairs = f"all {len(held_out):,} pairs"
    if len(held_out) == 1:
        return "there is a single pair, and training takes one to train on and one to hold out"
    if held_out.all():
        if undecided.any():
            return f"{pairs} are held out of training; lower train.held_out_fraction"
        return f"the split column of the table holds {pairs} out of training; mark some rows 'train'"
    if undecided.any() and held_out_fraction == 0:
        return (
            "no pair is held out of training, since train.held_out_fraction is 0; raise it, to 0.02 perhaps: "
            "held-out pairs are what the model is judged on"
        )
    return (
        f"the split column of the table keeps {pairs} for training; mark some rows 'held_out', or remove "
        "download.split_column and let train.held_out_fraction choose"
    )


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


def batch_epochs(train_pairs: int, batch_size: int, step: int) -> NDArray[np.int64]:
    """The epoch in which each pair of a step's batch is [b]"""
    return (step * batch_size + np.arange(batch_size)) // train_pairs


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
