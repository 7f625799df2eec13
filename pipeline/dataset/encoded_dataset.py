"""Encodings -> tensors: which pairs are held out, in what order the others come, and their
dequantization.

The order follows from the seed and the step alone, so that a resumed training sees what an
uninterrupted one would. Knows nothing of noise or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.encodings import EncodedArrays, EncodingsError, read_arrays, unmap_pages
from data_catalog.storage.manifest import Manifest
from pipeline.dataset.caption_sampling import CaptionSampler
from tld_model.config import TextForm
from tld_model.quantize import Quantization, dequantize


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs as the model sees them."""

    latents: Tensor  # scaled latents, float32 [b, c, z, z]
    text: Tensor  # pooled text embeddings, float32 [b, d]; or token-level ones [b, l, t], zero where there is no token


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """All pairs of some encodings, memory-mapped, addressed by their number."""

    shards: tuple[EncodedArrays, ...]
    starts: NDArray[np.int64]  # number of the first pair of each shard
    quantization: Quantization
    form: TextForm = "pooled"
    longest_caption: int = (
        0  # tokens: all batches of token-level text have this length, as a compiler likes it
    )
    caption_columns: tuple[str, ...] = ("caption",)  # the main one first
    sampler: CaptionSampler | None = None  # where pairs have several captions, and epochs are told

    def batch(
        self,
        numbers: NDArray[np.int64],
        device: str = "cpu",
        epochs: NDArray[np.int64] | None = None,
    ) -> Batch:
        """The pairs of these numbers, in this order, with their main captions; or with those drawn
        for the epoch in which each is [b]. They travel to the device as they are stored, a quarter
        or half of their size as numbers, and are dequantized there."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        first = self.shards[int(shard_of[0])]
        latents = np.empty((len(numbers), *first.latents.shape[1:]), first.latents.dtype)
        text = np.empty((len(numbers), *self._text_shape(first)), np.float16)
        uniform = (
            self.sampler.uniform(numbers, epochs) if self.sampler and epochs is not None else None
        )
        for index in np.unique(shard_of):
            here = shard_of == index
            rows = numbers[here] - self.starts[index]
            shard = self.shards[index]
            latents[here] = shard.latents[rows]
            captions = self._captions(shard, rows, uniform[here] if uniform is not None else None)
            text[here] = (
                shard.text[captions] if self.form == "pooled" else self._tokens(shard, captions)
            )
            unmap_pages(shard)
        stored = torch.from_numpy(latents).to(device, non_blocking=True)
        return Batch(
            dequantize(stored, self.quantization),
            torch.from_numpy(text).to(device, non_blocking=True).float(),
        )

    def keys(self, numbers: NDArray[np.int64]) -> list[str]:
        """The keys of the pairs of these numbers."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = zip(shard_of, numbers - self.starts[shard_of], strict=True)
        return [self.shards[shard].key[row].decode() for shard, row in rows]

    def _text_shape(self, shard: EncodedArrays) -> tuple[int, ...]:
        if self.form == "pooled":
            return shard.text.shape[1:]
        assert shard.tokens is not None, "open_dataset looked"
        return (self.longest_caption, shard.tokens.shape[1])

    def _captions(
        self, shard: EncodedArrays, rows: NDArray[np.int64], uniform: NDArray[np.float64] | None
    ) -> NDArray[np.int64]:
        """Which rows of the text of a shard belong to some of its pairs [b]: the main ones, or
        drawn by chance."""
        if shard.text_start is None or shard.text_column is None:
            return rows
        first, end = shard.text_start[rows], shard.text_start[rows + 1]
        if self.sampler is None or uniform is None:
            return first
        places = first[:, None] + np.arange(len(self.caption_columns))  # [b, c]
        present = places < end[:, None]
        columns = np.full(places.shape, -1)
        columns[present] = shard.text_column[places[present]]
        return first + self.sampler.choose(columns, uniform)

    def _tokens(self, shard: EncodedArrays, captions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Token-level text of some captions of a shard, with zeros to the length of all: [b, l,
        t]"""
        assert shard.tokens is not None, "open_dataset looked"
        assert shard.token_start is not None, "open_dataset looked"
        first, end = shard.token_start[captions], shard.token_start[captions + 1]
        places = first[:, None] + np.arange(self.longest_caption)  # [b, l]
        present = places < end[:, None]
        padded = np.zeros((*places.shape, shard.tokens.shape[1]), np.float16)
        padded[present] = shard.tokens[places[present]]
        return padded


def open_dataset(encodings: Manifest, form: TextForm = "pooled") -> EncodedDataset:
    """Map the encodings of a manifest into memory; their text comes in this form. Raises
    EncodingsError."""
    if form == "tokens" and "token_dim" not in encodings.figures:
        raise EncodingsError(
            f"{encodings.folder} holds no token-level text: set encode.text=tokens"
        )
    filled = [shard for shard in encodings.shards if shard.rows]
    arrays = tuple(read_arrays(encodings.file(f"{shard.name}.npz")) for shard in filled)
    for shard, content in zip(filled, arrays, strict=True):
        if len(content.key) != shard.rows or _layout(content) != _layout(arrays[0]):
            raise EncodingsError(
                f"{encodings.folder / shard.name}.npz does not fit the manifest or the other "
                "shards: it has "
                f"{len(content.key)} rows of {shard.rows}, and latents {content.latents.shape[1:]} of "
                f"{content.latents.dtype}"
            )
        if form == "tokens" and content.tokens is None:
            raise EncodingsError(f"{encodings.folder / shard.name}.npz holds no token-level text")
    starts = np.cumsum([0, *(len(shard.key) for shard in arrays[:-1])], dtype=np.int64)
    figures = encodings.figures["quantization"]
    clip = figures["clip"]
    quantization = Quantization(
        tuple(clip) if isinstance(clip, list) else clip, figures.get("dtype", "uint8")
    )
    longest = encodings.figures.get("longest_caption", 0)
    columns = tuple(encodings.figures.get("caption_columns", ("caption",)))
    return EncodedDataset(arrays, starts, quantization, form, longest, columns)


def _layout(arrays: EncodedArrays) -> tuple[object, ...]:
    """What all shards have in common."""
    tokens = None if arrays.tokens is None else arrays.tokens.shape[1]
    return arrays.latents.shape[1:], arrays.latents.dtype, arrays.text.shape[1], tokens
