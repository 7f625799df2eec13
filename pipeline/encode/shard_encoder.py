"""The shard encoder: one image shard becomes one encoded shard.

On a GPU, the results of a batch stay there until the whole shard is done, so that the GPU never
waits. On a CPU, several threads each read and encode a batch at the same time.

n pairs of a shard   b pairs of a batch   c channels   z latent size   d embedding width
m captions of a shard   u distinct captions   l tokens of a caption   t their width
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_catalog.encodings import EncodedArrays, write_encoded_shard
from data_catalog.excluded_rows import dropped_keys, write_dropped
from data_catalog.images import UnreadableImage
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.digests import FileRecord, file_digest, file_records
from data_catalog.storage.receipts import Shard, write_receipt
from pipeline.compute.devices import choose_device, torch_threads
from pipeline.config.encode import EncodeConfig
from pipeline.encode.image_batches import (
    DESCRIPTION,
    ImageBatch,
    PackedBatch,
    in_lanes,
    packed_batches,
    unpack,
)
from pipeline.encode.latent_statistics import figures_from, measure, sums_of
from pipeline.encode.unreadable_images import unreadable
from pipeline.stages.integrity import refuse_damaged
from tld_model.encoders.clip import Clip, EncodedText, load_clip
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.quantize import Quantization, quantize

Row = dict[str, str]
# If none of at least this many images of a shard has finite encodings, the encoders are at fault.
_MIN_IMAGES_TO_JUDGE = 8
_MAX_THREADS = 8  # batches at once, because each takes memory


def quantization_of(config: EncodeConfig) -> Quantization:
    """The quantization of latents in these settings."""
    return Quantization(config.latent_clip, config.latent_dtype)


@dataclass(slots=True)
class ShardEncoder:
    """Encodes one shard at a time. Each process loads the encoders once."""

    images: Path
    config: EncodeConfig
    out: Path
    recipes: Mapping[str, str] = field(default_factory=dict)
    caption_columns: Sequence[str] = ("caption",)
    tars: Mapping[str, FileRecord] = field(
        default_factory=dict
    )  # as they were when the download finished them
    edge: int | None = None  # pixels of each image
    codec: ImageCodec = field(init=False)
    clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        device = choose_device(self.config.device)
        self.codec = load_image_codec(self.config.vae, device)
        self.clip = load_clip(self.config.clip, device)
        if self.config.posterior == "sample" and not self.codec.has_posterior:
            raise EncoderError(
                f"VAE {self.config.vae!r} has no posterior to sample from; set "
                "encode.posterior=mean"
            )
        clip, channels = self.config.latent_clip, self.codec.latent_channels
        if isinstance(clip, tuple) and len(clip) != channels:
            raise EncoderError(
                f"VAE {self.config.vae!r} makes {channels} channels, but encode.latent_clip is a "
                f"list of {len(clip)}; give one number, or one for each channel"
            )

    def __call__(self, name: str) -> Shard:
        """Encode a shard.

        Images that cannot be decoded are excluded if the tar is the one that the download finished.
        This includes images that crash a worker: the mark that the worker leaves tells the next one
        to look for them.
        """
        tar, mark = ensure_local(self.images / f"{name}.tar"), self.out / f".{name}.begun"
        unreadable_rows = unreadable(tar, self.edge) if mark.exists() else []
        mark.touch()
        try:
            try:
                encoded = self._shard(name, tar, unreadable_rows)
            except UnreadableImage:
                if name not in self.tars:
                    raise
                unreadable_rows = unreadable(tar, self.edge)
                encoded = self._shard(name, tar, unreadable_rows)
            encoded, overflowing = self._without_overflow(encoded)
            encoded, mismatched = self._without_poor_matches(encoded)
            return self._write(name, encoded, unreadable_rows + overflowing + mismatched)
        finally:
            mark.unlink(missing_ok=True)

    def _shard(self, name: str, tar: Path, unreadable_rows: Sequence[Row]) -> _Encoded:
        """Encode the pairs of a shard, except duplicates and these rows. Raises ManifestError if
        the tar is damaged."""
        dropped = dropped_keys(self.images, name) | {row["key"] for row in unreadable_rows}
        packed = packed_batches(tar, self.config.batch_size, lambda pair: pair.key not in dropped)
        # Decoders miss many flipped bits, and hashing beside them takes no extra time.
        with ThreadPoolExecutor(1) as hashing:
            check = (
                hashing.submit(refuse_damaged, tar, self.tars[name]) if name in self.tars else None
            )
            try:
                return self._join(list(self._encoded(packed)))
            finally:  # a damaged file is reported as such, whatever else it caused
                if check:
                    check.result()

    def _encoded(self, packed: Iterable[PackedBatch]) -> Iterator[_EncodedBatch]:
        """The encodings of the batches of a shard, in order."""
        cores = max(1, len(os.sched_getaffinity(0)) // self.config.workers)
        threads = min(cores, _MAX_THREADS)
        if self.codec.vae.device.type == "cuda":
            yield from map(self._encode, in_lanes(self._unpack_pinned, packed, threads))
        else:
            with torch_threads(cores // threads):
                yield from in_lanes(self._unpack_and_encode, packed, threads)

    def _unpack_pinned(self, batch: PackedBatch) -> ImageBatch:
        return unpack(batch, self.clip.tokenize, True, self.edge)

    def _unpack_and_encode(self, batch: PackedBatch) -> _EncodedBatch:
        return self._encode(unpack(batch, self.clip.tokenize, edge=self.edge))

    def _encode(self, batch: ImageBatch) -> _EncodedBatch:
        """Encode one batch. The results stay on the device, because reading one waits for it."""
        quantization = quantization_of(self.config)
        pixels = batch.pixels.to(self.codec.vae.device, non_blocking=True)
        latents = self.codec.encode(pixels, self._noise(batch))  # [b, c, z, z]
        stored = quantize(latents, quantization)
        return _EncodedBatch(
            rows=batch.rows,
            captions=batch.captions,
            stored=stored,
            new_text=self._encode_text(batch.new_tokens) if batch.new_tokens is not None else None,
            image_embeddings=self.clip.encode_images(pixels),
            measured=measure(latents, stored, quantization),
        )

    def _encode_text(self, tokens: dict[str, Tensor]) -> EncodedText:
        if self.config.text == "pooled":
            return EncodedText(self.clip.encode_tokens(tokens))
        return self.clip.encode_both(tokens)

    def _join(self, batches: list[_EncodedBatch]) -> _Encoded:
        """Join the batches of a whole shard, on the CPU."""
        rows = {
            name: [value for batch in batches for value in batch.rows[name]]
            for name in (*DESCRIPTION, "height", "width")
        }
        if not batches:
            return _Encoded(
                rows, [], torch.zeros(0, 0, 0, 0), torch.zeros(0, self.clip.dim), [], {}
            )
        captions = [numbers for batch in batches for numbers in batch.captions]
        new_text = [batch.new_text for batch in batches if batch.new_text is not None]
        text = torch.cat([part.pooled for part in new_text]).cpu()  # [u, d]
        states = [states for part in new_text for states in part.unpadded()]
        figures = {
            name: torch.cat([batch.measured[name] for batch in batches]).cpu()
            for name in batches[0].measured
        }
        image_embeddings = torch.cat([batch.image_embeddings for batch in batches]).cpu()
        figures["clip_score"] = 100 * F.cosine_similarity(
            image_embeddings, text[[numbers[0] for numbers in captions]]
        )
        stored = torch.cat([batch.stored for batch in batches]).cpu()
        return _Encoded(rows, captions, stored, text, states, figures)

    def _noise(self, batch: ImageBatch) -> Tensor | None:
        """Standard normal noise that depends on the key alone, not on the batch: [b, c, z, z]."""
        if self.config.posterior == "mean":
            return None
        height, width = (side // self.codec.downscale for side in batch.pixels.shape[2:])
        shape = (self.codec.latent_channels, height, width)
        return torch.stack(
            [
                torch.randn(shape, generator=torch.Generator().manual_seed(_seed_of(key)))
                for key in batch.rows["key"]
            ]
        )

    def _without_overflow(self, encoded: _Encoded) -> tuple[_Encoded, list[Row]]:
        """Split off the pairs whose encodings are not finite. Numbers too large for float16, in
        which a GPU computes, would be stored as arbitrary latents. Raises EncoderError if none of
        many pairs is finite."""
        if not encoded.captions or (finite := encoded.finite).all():
            return encoded, []
        if len(finite) >= _MIN_IMAGES_TO_JUDGE and not finite.any():
            raise EncoderError(
                f"VAE {self.config.vae!r} or CLIP {self.config.clip!r} makes no finite numbers of "
                f"any of {len(finite)} images; some models overflow float16, in which a GPU "
                "computes: choose one that is made for it, such as madebyollin/sdxl-vae-fp16-fix "
                "instead of SDXL's VAE"
            )
        return encoded.without(~finite, "the encoders make no finite numbers of it")

    def _without_poor_matches(self, encoded: _Encoded) -> tuple[_Encoded, list[Row]]:
        """Split off the pairs whose caption does not match their image."""
        threshold = self.config.min_clip_score
        if threshold is None or not encoded.captions:
            return encoded, []
        return encoded.without(
            encoded.measured["clip_score"] < threshold, f"clip score below {threshold:g}"
        )

    def _write(self, name: str, encoded: _Encoded, excluded: list[Row]) -> Shard:
        rows, measured = dict(encoded.rows), encoded.measured
        filled = len(encoded.captions) > 0
        rows["clip_score"] = measured["clip_score"].tolist() if filled else []
        rows["clipped_fraction"] = measured["clipped"].tolist() if filled else []
        rows["quantization_rmse"] = measured["squared_error"].sqrt().tolist() if filled else []
        if not self._more_captions:
            del rows["more_captions"]
        arrays = self._arrays(encoded)
        write_encoded_shard(self.out, name, rows, arrays)
        content = [self.out / f"{name}.npz", self.out / f"{name}.parquet"]
        excluded_files = [write_dropped(self.out, name, excluded)] if excluded else []
        sums = sums_of(measured) if filled else {"rows": 0}
        receipt = Shard(
            name=name,
            rows=len(arrays.key),
            digest=" ".join(file_digest(path) for path in content),
            files=file_records([*content, *excluded_files]),
            recipe=self.recipes.get(name, ""),
            figures={
                **(figures_from(sums) if filled else {}),
                "sums": sums,
                "dropped": dict(Counter(row["reason"] for row in excluded)),
                "latent_shape": list(arrays.latents.shape[1:]),
                "text_dim": self.clip.dim,
                **self._text_figures(arrays),
                "codec": self._codec_figures(),
            },
        )
        write_receipt(self.out, receipt)
        return receipt

    @property
    def _more_captions(self) -> bool:
        return len(self.caption_columns) > 1

    def _arrays(self, encoded: _Encoded) -> EncodedArrays:
        """The arrays of a shard. A caption that several pairs share is stored for each of them."""
        caption_numbers = [
            number for numbers in encoded.captions for number in numbers.values()
        ]  # m numbers
        columns = [column for numbers in encoded.captions for column in numbers]
        counts = [len(numbers) for numbers in encoded.captions]
        by_token = self.config.text == "tokens"
        states = [encoded.states[number].numpy() for number in caption_numbers] if by_token else []
        return EncodedArrays(
            latents=encoded.stored.numpy(),
            text=encoded.text[caption_numbers].half().numpy(),
            key=np.array(encoded.rows["key"], dtype=np.bytes_),
            text_start=_starts(counts) if self._more_captions else None,
            text_column=np.array(columns, np.uint8) if self._more_captions else None,
            tokens=np.concatenate([np.zeros((0, self.clip.token_dim), np.float16), *states])
            if by_token
            else None,
            token_start=_starts([len(rows) for rows in states]) if by_token else None,
        )

    def _text_figures(self, arrays: EncodedArrays) -> dict[str, Any]:
        """Figures of what is stored beside the pooled embeddings of the main captions."""
        figures: dict[str, Any] = {"captions": len(arrays.text)} if self._more_captions else {}
        if arrays.token_start is not None:
            longest = int(np.diff(arrays.token_start).max(initial=0))
            figures |= {"token_dim": self.clip.token_dim, "longest_caption": longest}
        return figures

    def _codec_figures(self) -> dict[str, float]:
        names = ("scaling_factor", "shift", "latent_channels", "downscale")
        return {name: getattr(self.codec, name) for name in names}


@dataclass(frozen=True, slots=True)
class _EncodedBatch:
    """The encodings of a batch, on the device of the encoders."""

    rows: dict[str, list[Any]]  # column -> b values
    captions: list[dict[int, int]]  # as in PackedBatch
    stored: Tensor  # uint8 or float16 [b, c, z, z]
    new_text: EncodedText | None  # of the captions that no earlier batch had
    image_embeddings: Tensor  # float32 [b, d]
    measured: dict[str, Tensor]  # name -> [b, ...]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The encodings of a shard, on the CPU."""

    rows: dict[str, list[Any]]  # column -> n values
    captions: list[dict[int, int]]  # as in PackedBatch
    stored: Tensor  # uint8 or float16 [n, c, z, z]
    text: Tensor  # of distinct captions, float32 [u, d]
    states: list[
        Tensor
    ]  # of their tokens, float16 [l, t] each; empty if only pooled text is stored
    measured: dict[str, Tensor]  # name -> [n, ...]; empty if there are no rows

    @property
    def finite(self) -> Tensor:
        """Whether all stored numbers of a pair are finite: bool [n]."""
        text = self.text.half().isfinite().all(dim=1)  # [u]
        if self.states:
            text &= torch.tensor([bool(states.isfinite().all()) for states in self.states])
        texts = torch.tensor(
            [bool(text[list(numbers.values())].all()) for numbers in self.captions]
        )
        return (
            texts
            & self.measured["squared_error"].isfinite()
            & self.measured["clip_score"].isfinite()
        )

    def without(self, unwanted: Tensor, reason: str) -> tuple[_Encoded, list[Row]]:
        """Split off the rows at which `unwanted`, bool [n], is true, and label them with the
        reason."""
        excluded = [
            {name: self.rows[name][i] for name in ("key", "url", "caption")}
            for i in unwanted.nonzero().flatten()
        ]
        return self._select(~unwanted), [{**row, "reason": reason} for row in excluded]

    def _select(self, mask: Tensor) -> _Encoded:
        """The rows at which `mask`, bool [n], is true."""
        numbers = mask.nonzero().flatten()
        return _Encoded(
            {name: [values[i] for i in numbers] for name, values in self.rows.items()},
            [self.captions[i] for i in numbers],
            self.stored[numbers],
            self.text,
            self.states,
            {name: values[numbers] for name, values in self.measured.items()},
        )


def _starts(counts: list[int]) -> NDArray[np.int64]:
    """The start of each of several runs, and the end of the last: [len + 1]."""
    return np.cumsum([0, *counts], dtype=np.int64)


def _seed_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1
