"""The data set of encoded image-caption pairs: memory-mapped shards -> dequantized batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.array_checks import FURTHER_LATENTS
from data_catalog.encodings import EncodedArrays, EncodingsError, read_arrays, unmap_pages
from data_catalog.figures import EncodingsFigures
from data_catalog.storage.manifest import Manifest
from pipeline.dataset.caption_sampling import CaptionSampler
from pipeline.dataset.pair_draws import flips_of_pairs
from tld_model.config import TextForm
from tld_model.quantize import ZERO_POINT, Quantization, dequantize
from tld_model.quantize_spread import dequantize_spread
from tld_model.quantize_tokens import StoredStates, dequantize_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of pairs as the model takes them."""

    latents: Tensor  # scaled latents, float32 [b, c, z, z]
    # Pooled text embeddings, float32 [b, d]; or token-level ones [b, l, t], padded with zeros.
    text: Tensor


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch of pairs as they are stored, on the CPU: a quarter or half of the size."""

    latents: Tensor  # uint8 or float16 [b, c, z, z]
    text: StoredStates  # float16 [b, d], or token states [b, l, t]
    quantization: Quantization
    spread: Tensor | None = None  # of the posterior, as stored: uint8 [b, c, z, z]

    def pinned(self) -> StoredBatch:
        """A copy in memory from which a GPU copies while the host goes on."""
        scale = None if self.text.scale is None else self.text.scale.pin_memory()
        text = StoredStates(self.text.states.pin_memory(), scale)
        spread = None if self.spread is None else self.spread.pin_memory()
        return replace(self, latents=self.latents.pin_memory(), text=text, spread=spread)

    def on(self, device: str, noise: Tensor | None = None) -> Batch:
        """The batch on a device, dequantized there. With unit noise [b, c, z, z] on that device,
        latents whose spread is stored are samples from their posterior: mean + std * noise."""
        latents, states = (
            x.to(device, non_blocking=True) for x in (self.latents, self.text.states)
        )
        scale = self.text.scale
        scale = None if scale is None else scale.to(device, non_blocking=True)
        text = dequantize_tokens(StoredStates(states, scale))
        clean = dequantize(latents, self.quantization)
        if self.spread is not None and noise is not None:
            spread = self.spread.to(device, non_blocking=True)
            clean = clean + dequantize_spread(spread) * noise
        return Batch(clean, text)


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """All pairs of an encodings output, memory-mapped and addressed by number."""

    shards: tuple[EncodedArrays, ...]
    starts: NDArray[np.int64]  # number of the first pair of each shard
    quantization: Quantization
    form: TextForm = "pooled"
    # In tokens. All batches of token-level text have this length: a compiled model sees one shape.
    longest_caption: int = 0
    caption_columns: tuple[str, ...] = ("caption",)  # the main one first
    sampler: CaptionSampler | None = None  # for pairs with several captions, if epochs are given
    seed: int = 0  # of the choice between latents and those of mirrored images, as above

    @property
    def rows(self) -> int:
        """The number of pairs."""
        return int(self.starts[-1]) + len(self.shards[-1].key)

    @property
    def has_spread(self) -> bool:
        """Whether standard deviations of the VAE's posterior are stored."""
        return self.shards[0].latents_spread is not None

    def batch(self, numbers: NDArray[np.int64], device: str = "cpu") -> Batch:
        """The pairs with these numbers, in this order, with their main captions."""
        return self.stored_batch(numbers).on(device)

    def stored_batch(
        self, numbers: NDArray[np.int64], epochs: NDArray[np.int64] | None = None
    ) -> StoredBatch:
        """The pairs with these numbers, in this order. Each has its main caption and its latent or,
        if `epochs` [b] are given, the caption that is sampled for its epoch, and in half of the
        epochs the latent of the mirrored image, if that is stored."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        first = self.shards[int(shard_of[0])]
        latents = np.empty((len(numbers), *first.latents.shape[1:]), first.latents.dtype)
        with_spread = self.has_spread and epochs is not None
        spread = np.empty(latents.shape, np.uint8) if with_spread else None
        text = self._empty_text(len(numbers), first)
        uniform = flips = None
        if epochs is not None:
            flips = flips_of_pairs(self.seed, numbers, epochs)
            uniform = self.sampler.uniform(numbers, epochs) if self.sampler else None
        for index in np.unique(shard_of):
            here = np.flatnonzero(shard_of == index)
            rows = numbers[here] - self.starts[index]
            shard = self.shards[index]
            latents[here] = shard.latents[rows]
            if spread is not None:
                spread[here] = _present(shard.latents_spread)[rows]
            if flips is not None and shard.flipped is not None:
                mirrored = flips[here]
                latents[here[mirrored]] = shard.flipped[rows[mirrored]]
                if spread is not None:
                    spread[here[mirrored]] = _present(shard.flipped_spread)[rows[mirrored]]
            captions = self._captions(shard, rows, uniform[here] if uniform is not None else None)
            if self.form == "pooled":
                text.states[here] = torch.from_numpy(shard.text[captions])
            else:
                self._copy_tokens(shard, captions, text, here)
            unmap_pages(shard)
        return StoredBatch(
            torch.from_numpy(latents),
            text,
            self.quantization,
            None if spread is None else torch.from_numpy(spread),
        )

    def keys(self, numbers: NDArray[np.int64]) -> list[str]:
        """The keys of the pairs with these numbers."""
        shard_of = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = zip(shard_of, numbers - self.starts[shard_of], strict=True)
        return [self.shards[shard].key[row].decode() for shard, row in rows]

    def _empty_text(self, rows: int, shard: EncodedArrays) -> StoredStates:
        """Memory for the text of some pairs. Token states are padding, which stands for zeros."""
        if self.form == "pooled":
            return StoredStates(torch.empty(rows, shard.text.shape[1], dtype=torch.float16))
        assert shard.tokens is not None, "open_dataset checked this"
        shape = (rows, self.longest_caption, shard.tokens.shape[1])
        if shard.token_scale is None:
            return StoredStates(torch.zeros(shape, dtype=torch.float16))
        return StoredStates(
            torch.full(shape, ZERO_POINT, dtype=torch.uint8),
            torch.zeros(shape[:2], dtype=torch.float16),
        )

    def _captions(
        self, shard: EncodedArrays, rows: NDArray[np.int64], uniform: NDArray[np.float64] | None
    ) -> NDArray[np.int64]:
        """The text rows of some pairs of a shard [b]: the main captions or the sampled ones."""
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

    def _copy_tokens(
        self,
        shard: EncodedArrays,
        captions: NDArray[np.int64],
        text: StoredStates,
        rows: NDArray[np.int64],
    ) -> None:
        """Copy the tokens of some captions of a shard into these rows of the text."""
        assert shard.tokens is not None, "open_dataset checked this"
        assert shard.token_start is not None, "open_dataset checked this"
        first, end = shard.token_start[captions], shard.token_start[captions + 1]
        places = first[:, None] + np.arange(self.longest_caption)  # [b, l]
        row, column = np.nonzero(places < end[:, None])
        chosen = places[row, column]
        text.states.numpy()[rows[row], column] = shard.tokens[chosen]
        if text.scale is not None and shard.token_scale is not None:
            text.scale.numpy()[rows[row], column] = shard.token_scale[chosen]


def open_dataset(encodings: Manifest, form: TextForm = "pooled") -> EncodedDataset:
    """Memory-map the encodings of a manifest, with text in this form. Raises EncodingsError if a
    shard lacks it or does not fit the others."""
    figures = EncodingsFigures.of(encodings)
    if form == "tokens" and figures.token_dim is None:
        raise EncodingsError(
            f"{encodings.folder} contains no token-level text: set encode.text=tokens"
        )
    filled = [shard for shard in encodings.shards if shard.rows]
    arrays = tuple(read_arrays(encodings.file(f"{shard.name}.npz")) for shard in filled)
    for shard, content in zip(filled, arrays, strict=True):
        if len(content.key) != shard.rows or _layout(content) != _layout(arrays[0]):
            raise EncodingsError(
                f"{encodings.folder / shard.name}.npz does not fit the manifest or the other "
                f"shards: it has {len(content.key)} rows of {shard.rows}, and latents "
                f"{content.latents.shape[1:]} of {content.latents.dtype}"
            )
        if form == "tokens" and content.tokens is None:
            raise EncodingsError(
                f"{encodings.folder / shard.name}.npz contains no token-level text"
            )
    starts = np.cumsum([0, *(len(shard.key) for shard in arrays[:-1])], dtype=np.int64)
    quantization = Quantization(figures.quantization.clip, figures.quantization.dtype)
    longest, columns = figures.longest_caption or 0, figures.caption_columns or ("caption",)
    return EncodedDataset(arrays, starts, quantization, form, longest, columns)


def _layout(arrays: EncodedArrays) -> tuple[object, ...]:
    """The properties that all shards must share."""
    tokens = None if arrays.tokens is None else (arrays.tokens.shape[1], arrays.tokens.dtype)
    further = FURTHER_LATENTS & arrays.by_name.keys()
    return arrays.latents.shape[1:], arrays.latents.dtype, arrays.text.shape[1], tokens, further


def _present(array: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """An array that its layout promises."""
    assert array is not None, "read_arrays and open_dataset checked this"
    return array
