"""Stage 2, images -> encodings: every picture once through the VAE, every caption once through CLIP.

One encoded shard per image shard, resumable by shard. Knows nothing of how pictures came or of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_catalog.encodings import SCHEMA, EncodedArrays, write_encoded_shard
from data_catalog.images import ImagePair, read_image_pairs
from data_catalog.manifest import Manifest, Shard, file_digest, read_receipt, write_receipt
from pipeline.config import EncodeConfig
from pipeline.devices import choose_device
from pipeline.stage import MapShards, Output, StageFailed, Tracker
from tld_model.encoders import Clip, ImageCodec, load_clip, load_image_codec
from tld_model.quantize import ZERO_POINT, Quantization, clipped_fraction, dequantize, quantize


def encode(images: Manifest, config: EncodeConfig, out: Path, track: Tracker, map_shards: MapShards) -> Output:
    """Encode every image shard that is not encoded yet."""
    done = {shard.name: receipt for shard in images.shards if (receipt := read_receipt(out, shard.name))}
    missing = [shard.name for shard in images.shards if shard.name not in done]
    make_worker = partial(ShardEncoder, images.folder, config, out)
    _report(track, done, len(images.shards))
    for receipt in map_shards(make_worker, missing, config.workers):
        done[receipt.name] = receipt
        _report(track, done, len(images.shards))

    receipts = tuple(done[name] for name in sorted(done))
    filled = next((receipt for receipt in receipts if receipt.rows), None)
    if not filled:
        raise StageFailed("encode: no picture is left to encode; look at the account of the download")
    quantization = Quantization(config.latent_clip)
    figures = {
        "encoders": {"vae": config.vae, "clip": config.clip},
        "quantization": {"scale": quantization.scale, "clip": quantization.clip, "zero_point": ZERO_POINT},
        "latent_shape": filled.figures["latent_shape"],
        "text_dim": filled.figures["text_dim"],
        "account": {**images.figures["account"], "encoded": sum(receipt.rows for receipt in receipts)},
        **_measured(receipts, quantization),
    }
    track.metrics({k: figures[k] for k in ("quantization_rmse", "clipped_fraction", "clip_score")}, step=len(receipts))
    return Output(receipts, figures)


def _measured(receipts: Iterable[Shard], quantization: Quantization) -> dict[str, float]:
    """Errors and spread over all latents, from the sums that the shards kept."""
    sums = {name: sum(receipt.figures["sums"][name] for receipt in receipts) for name in _SUMS}
    rows, values = sums["rows"], sums["values"]
    mean = sums["latent"] / values
    return {
        "quantization_rmse": math.sqrt(sums["squared_error"] / values),
        "quantization_bound": quantization.scale / 2,
        "clipped_fraction": sums["clipped"] / rows,
        "latent_mean": mean,
        "latent_std": math.sqrt(max(sums["latent_squared"] / values - mean**2, 0.0)),
        "clip_score": sums["clip_score"] / rows,
    }


_SUMS = ("rows", "values", "latent", "latent_squared", "squared_error", "clipped", "clip_score")


def _report(track: Tracker, done: dict[str, Shard], shards: int) -> None:
    rows = sum(shard.rows for shard in done.values())
    track.progress(len(done), shards, f"{rows} pictures encoded")
    track.metrics({"encoded": rows}, step=len(done))


@dataclass(slots=True)
class ShardEncoder:
    """Encodes one shard at a time; loads its models once a process."""

    images: Path
    config: EncodeConfig
    out: Path
    codec: ImageCodec = field(init=False)
    clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        device = choose_device(self.config.device)
        self.codec = load_image_codec(self.config.vae, device)
        self.clip = load_clip(self.config.clip, device)

    def __call__(self, name: str) -> Shard:
        rows: dict[str, list[Any]] = {column: [] for column in SCHEMA.names}
        latents: list[Tensor] = []
        text: list[Tensor] = []
        sums = dict.fromkeys(_SUMS, 0.0)
        for pairs in _batches(read_image_pairs(self.images / f"{name}.tar"), self.config.batch_size):
            encoded = self._encode(pairs)
            latents.append(encoded.levels)
            text.append(encoded.text)
            for column, values in encoded.rows.items():
                rows[column] += values
            for total, value in encoded.sums.items():
                sums[total] += value

        arrays = EncodedArrays(
            latents=torch.cat(latents).numpy() if latents else np.zeros((0, 0, 0, 0), np.uint8),
            text=torch.cat(text).half().numpy() if text else np.zeros((0, self.clip.dim), np.float16),
            key=np.array(rows["key"], dtype=np.bytes_),
        )
        write_encoded_shard(self.out, name, rows, arrays)
        return self._receipt(name, arrays, sums)

    def _receipt(self, name: str, arrays: EncodedArrays, sums: dict[str, float]) -> Shard:
        files = [self.out / f"{name}.npz", self.out / f"{name}.parquet"]
        receipt = Shard(
            name=name,
            rows=len(arrays.key),
            digest=" ".join(file_digest(path) for path in files),
            files={path.name: path.stat().st_size for path in files},
            figures={"sums": sums, "latent_shape": list(arrays.latents.shape[1:]), "text_dim": self.clip.dim},
        )
        write_receipt(self.out, receipt)
        return receipt

    def _encode(self, pairs: list[ImagePair]) -> _EncodedBatch:
        quantization = Quantization(self.config.latent_clip)
        pixels = torch.from_numpy(np.stack([pair.image for pair in pairs])).permute(0, 3, 1, 2)  # [b, 3, h, w]
        latents = self.codec.encode(pixels).cpu()  # [b, c, z, z]
        text = self.clip.encode_text([pair.caption for pair in pairs]).cpu()  # [b, d]
        scores = 100 * F.cosine_similarity(self.clip.encode_images(pixels).cpu(), text)  # [b]
        levels = quantize(latents, quantization)
        clipped = clipped_fraction(latents, quantization)

        columns: dict[str, list[Any]] = {
            name: [getattr(pair, name) for pair in pairs]
            for name in ("key", "url", "caption", "split", "original_width", "original_height", "sha256")
        }
        columns["height"], columns["width"] = ([pair.image.shape[axis] for pair in pairs] for axis in (0, 1))
        columns["clip_score"], columns["clipped_fraction"] = scores.tolist(), clipped.tolist()
        sums = {
            "rows": float(len(pairs)),
            "values": float(latents.numel()),
            "latent": latents.double().sum().item(),
            "latent_squared": latents.double().square().sum().item(),
            "squared_error": (dequantize(levels, quantization) - latents).double().square().sum().item(),
            "clipped": clipped.double().sum().item(),
            "clip_score": scores.double().sum().item(),
        }
        return _EncodedBatch(levels, text, columns, sums)


@dataclass(frozen=True, slots=True)
class _EncodedBatch:
    levels: Tensor  # uint8 [b, c, z, z]
    text: Tensor  # float32 [b, d]
    rows: dict[str, list[Any]]
    sums: dict[str, float]


def _batches(pairs: Iterator[ImagePair], size: int) -> Iterator[list[ImagePair]]:
    batch: list[ImagePair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
