"""The shard encoder: one image shard becomes one encoded shard.

On a GPU, the results of a batch stay there until the whole shard is done, so that the GPU never
waits. On a CPU, several threads each read and encode a batch at the same time.

n pairs of a shard   b pairs of a batch   c channels   z latent size   d embedding width
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_catalog.encodings import EncodedArrays, write_encoded_shard
from data_catalog.excluded_rows import dropped_keys, write_dropped
from data_catalog.figures import EncodedShardFigures
from data_catalog.images import UnreadableImage
from data_catalog.latent_figures import LatentSums, RoundTrip
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.digests import FileRecord, file_digest, file_records
from data_catalog.storage.receipts import Shard, write_receipt
from pipeline.compute.devices import advice_on_memory, torch_threads, use_one_of
from pipeline.compute.hardware import usable_cores
from pipeline.compute.worker_numbers import own_worker_number
from pipeline.config.encode import EncodeConfig
from pipeline.encode.caption_encoder import CaptionEncoder, caption_encoder
from pipeline.encode.image_batches import (
    ImageBatch,
    PackedBatch,
    in_lanes,
    packed_batches,
    unpack,
)
from pipeline.encode.latent_encoder import LatentEncoder, latent_encoder, quantization_of
from pipeline.encode.latent_statistics import statistics_from, sums_of
from pipeline.encode.round_trips import round_trips_file, write_round_trips
from pipeline.encode.shard_encodings import BatchEncodings, Row, ShardEncodings, join_batches
from pipeline.encode.unreadable_images import unreadable
from pipeline.stages.integrity import refuse_damaged
from pipeline.stages.progress import LiveCount
from tld_model.encoders.clip import Clip, load_clip
from tld_model.encoders.pretrained import EncoderError

# If none of at least this many images of a shard has finite encodings, the encoders are at fault.
_MIN_IMAGES_TO_JUDGE = 8
_MAX_THREADS = 8  # batches at once, because each takes memory


@dataclass(slots=True)
class ShardEncoder:
    """Encodes one shard at a time. Each process loads the encoders once."""

    images: Path
    config: EncodeConfig
    out: Path
    recipes: Mapping[str, str] = field(default_factory=dict)
    caption_columns: Sequence[str] = ("caption",)
    # The tars as they were when the download finished them.
    tars: Mapping[str, FileRecord] = field(default_factory=dict)
    edge: int | None = None  # pixels of each image
    keep_columns: Sequence[str] = ()  # of the input, for the table
    round_trips: Mapping[str, int] = field(default_factory=dict)  # shard -> how many
    latents: LatentEncoder = field(init=False)
    clip: Clip | None = field(init=False)
    captions: CaptionEncoder = field(init=False)

    def __post_init__(self) -> None:
        device = use_one_of(self.config.device, own_worker_number())
        self.latents = latent_encoder(self.config, device)
        self.clip = load_clip(self.config.clip, device) if self.config.clip else None
        self.captions = caption_encoder(self.config, self.clip, device)

    def __call__(self, name: str) -> Shard:
        """Encode a shard.

        Images that cannot be decoded are excluded if the tar is the one that the download finished.
        This includes images that crash a worker: the mark that the worker leaves tells the next one
        to look for them.
        """
        with advice_on_memory("Lower encode.batch_size, or encode.workers if they share a GPU"):
            return self._encode_or_exclude(name)

    def _encode_or_exclude(self, name: str) -> Shard:
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
            round_trips = self._round_trips(name, tar, encoded)
            excluded = unreadable_rows + overflowing + mismatched
            return self._write(name, encoded, excluded, round_trips)
        finally:
            mark.unlink(missing_ok=True)

    def _shard(self, name: str, tar: Path, unreadable_rows: Sequence[Row]) -> ShardEncodings:
        """Encode the pairs of a shard, except duplicates and these rows. Raises ManifestError if
        the tar is damaged."""
        dropped = dropped_keys(self.images, name) | {row["key"] for row in unreadable_rows}
        packed = packed_batches(tar, self.config.batch_size, lambda pair: pair.key not in dropped)
        # Decoders miss many flipped bits, and hashing beside them takes no extra time.
        with LiveCount(self.out, name) as images, ThreadPoolExecutor(1) as hashing:
            check = (
                hashing.submit(refuse_damaged, tar, self.tars[name]) if name in self.tars else None
            )
            try:
                encoded = []
                for batch in self._encoded(packed):
                    encoded.append(batch)
                    images.add(len(batch.captions))
                return join_batches(encoded, self.captions.text_dim)
            finally:  # a damaged file is reported as such, whatever else it caused
                if check:
                    check.result()

    def _encoded(self, packed: Iterable[PackedBatch]) -> Iterator[BatchEncodings]:
        """The encodings of the batches of a shard, in order."""
        cores = max(1, usable_cores() // self.config.workers)
        threads = min(cores, _MAX_THREADS)
        if self.latents.codec.vae.device.type == "cuda":
            yield from map(self._encode, in_lanes(self._unpack_pinned, packed, threads))
        else:
            with torch_threads(cores // threads):
                yield from in_lanes(self._unpack_and_encode, packed, threads)

    def _unpack_pinned(self, batch: PackedBatch) -> ImageBatch:
        return unpack(batch, self.captions.tokenize, self.edge, pin=True)

    def _unpack_and_encode(self, batch: PackedBatch) -> BatchEncodings:
        return self._encode(unpack(batch, self.captions.tokenize, self.edge))

    def _encode(self, batch: ImageBatch) -> BatchEncodings:
        """Encode one batch. The results stay on the device, because reading one waits for it."""
        pixels = batch.pixels.to(self.latents.codec.vae.device, non_blocking=True)
        images = self.latents(pixels, batch.rows["key"])
        return BatchEncodings(
            rows=batch.rows,
            captions=batch.captions,
            stored=images.stored,
            new_text=self.captions(batch.new_tokens) if batch.new_tokens else None,
            image_embeddings=self.clip.encode_images(pixels) if self.clip else None,
            measured=images.measured,
            more=images.more,
        )

    def _without_overflow(self, encoded: ShardEncodings) -> tuple[ShardEncodings, list[Row]]:
        """Split off the pairs whose encodings are not finite. Numbers too large for float16, in
        which a GPU computes, would be stored as arbitrary latents. Raises EncoderError if none of
        many pairs is finite."""
        if not encoded.captions or (finite := encoded.finite).all():
            return encoded, []
        if len(finite) >= _MIN_IMAGES_TO_JUDGE and not finite.any():
            raise EncoderError(
                f"VAE or text model ({', '.join(self.config.encoders)}) makes no finite numbers of "
                f"any of {len(finite)} images; some models overflow float16, in which a GPU "
                "computes: choose one that is made for it, such as madebyollin/sdxl-vae-fp16-fix "
                "instead of SDXL's VAE"
            )
        return encoded.without(~finite, "the encoders make no finite numbers of it")

    def _without_poor_matches(self, encoded: ShardEncodings) -> tuple[ShardEncodings, list[Row]]:
        """Split off the pairs whose caption does not match their image."""
        threshold = self.config.min_clip_score
        if threshold is None or not encoded.captions:
            return encoded, []
        return encoded.without(
            encoded.measured["clip_score"] < threshold, f"clip score below {threshold:g}"
        )

    def _round_trips(
        self, name: str, tar: Path, encoded: ShardEncodings
    ) -> tuple[RoundTrip, ...] | None:
        """The round trips of a shard, whose images are written; None if there are none."""
        count = min(self.round_trips.get(name, 0), len(encoded.captions))
        if not count:
            return None
        path, by = self.out / round_trips_file(name), quantization_of(self.config)
        return write_round_trips(path, tar, encoded, count, self.latents.codec, by)

    def _write(
        self,
        name: str,
        encoded: ShardEncodings,
        excluded: list[Row],
        round_trips: tuple[RoundTrip, ...] | None,
    ) -> Shard:
        rows = encoded.table(self.keep_columns, more_captions=self._more_captions)
        dim, dtype = self.captions.token_dim, self.config.token_dtype
        arrays = encoded.arrays(dim, dtype, more_captions=self._more_captions)
        write_encoded_shard(self.out, name, rows, arrays)
        content = [self.out / f"{name}.npz", self.out / f"{name}.parquet"]
        excluded_files = [write_dropped(self.out, name, excluded)] if excluded else []
        shown = [self.out / round_trips_file(name)] if round_trips else []
        figures = self._figures(encoded, arrays, excluded)
        figures = figures.model_copy(update={"round_trips": round_trips})
        receipt = Shard(
            name=name,
            rows=len(arrays.key),
            digest=" ".join(file_digest(path) for path in content),
            files=file_records([*content, *excluded_files, *shown]),
            recipe=self.recipes.get(name, ""),
            figures=figures.model_dump(mode="json"),
        )
        write_receipt(self.out, receipt)
        return receipt

    @property
    def _more_captions(self) -> bool:
        return len(self.caption_columns) > 1

    def _figures(
        self, encoded: ShardEncodings, arrays: EncodedArrays, excluded: list[Row]
    ) -> EncodedShardFigures:
        sums = sums_of(encoded.measured) if encoded.measured else LatentSums(rows=0)
        starts = arrays.token_start
        return EncodedShardFigures(
            statistics=statistics_from(sums) if sums.rows else None,
            sums=sums,
            dropped=dict(Counter(row["reason"] for row in excluded)),
            latent_shape=arrays.latents.shape[1:],
            text_dim=self.captions.text_dim,
            captions=len(arrays.text) if self._more_captions else None,
            token_dim=self.captions.token_dim,
            longest_caption=int(np.diff(starts).max(initial=0)) if starts is not None else None,
            token_sums=encoded.token_sums,
            text=self.captions.text,
            codec=self.latents.codec_figures,
        )
