"""Synthetic image shards and encodings for benchmarks, in the formats of real ones."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_catalog.encodings import SCHEMA, EncodedArrays, write_encoded_shard
from data_catalog.figures import EncoderNames, EncodingsFigures
from data_catalog.latent_figures import CodecFigures, LatentStatistics, QuantizationFigures
from data_catalog.row_counts import Account
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from tld_model.config import DenoiserConfig
from tld_model.quantize import ZERO_POINT, Quantization

LONGEST_CAPTION = 77  # longest caption of CLIP, in tokens
_SHORTEST_CAPTION = 8
_SHARD_ROWS = 10_000


class NoRoom(ValueError):
    """A disk without enough free space for the synthetic data."""

    exit_code = 2


def soft_images(count: int, edge: int) -> np.ndarray[Any, Any]:
    """Colour gradients, about as costly to decode as photographs: uint8 [n, edge, edge, 3]"""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    size = (edge, edge)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in coarse]
    )


def write_image_shard(
    path: Path, images: np.ndarray[Any, Any], captions: list[str], image_format: str
) -> None:
    """Write a tar file like those of the download stage."""
    kind = "JPEG" if image_format == "jpg" else image_format.upper()
    edge = images.shape[1]
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(captions):
            encoded = io.BytesIO()
            Image.fromarray(images[number % len(images)]).save(encoded, format=kind)
            metadata = {
                "url": "",
                "split": "",
                "original_width": edge,
                "original_height": edge,
                "sha256": "",
            }
            members = {
                image_format: encoded.getvalue(),
                "txt": caption.encode(),
                "json": json.dumps(metadata).encode(),
            }
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_encodings(folder: Path, pairs: int, model: DenoiserConfig) -> Manifest:
    """Write random encodings in the model's shapes; token-level captions have various lengths.
    Raises NoRoom if they do not fit on the disk."""
    latent = (model.latent_channels, model.latent_size, model.latent_size)
    by_token = model.text == "tokens"
    mean_tokens = (LONGEST_CAPTION + _SHORTEST_CAPTION) // 2 if by_token else 0  # of a caption
    text_bytes = (2 + mean_tokens) * model.text_dim + 2 * mean_tokens
    needed = pairs * (int(np.prod(latent)) + text_bytes + 100)
    free = shutil.disk_usage(folder).free
    if needed > 0.9 * free:
        raise NoRoom(
            f"{pairs:,} pairs need {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "free; use fewer with --pairs, or set TMPDIR to a folder on a larger disk"
        )
    rng = np.random.default_rng(0)
    sizes = [min(_SHARD_ROWS, pairs - start) for start in range(0, pairs, _SHARD_ROWS)]
    latents = rng.integers(1, 256, (sizes[0], *latent), dtype=np.uint8)
    text = rng.standard_normal((sizes[0], model.text_dim), dtype=np.float32).astype(np.float16)
    lengths = rng.integers(_SHORTEST_CAPTION, LONGEST_CAPTION + 1, sizes[0])
    starts = np.cumsum([0, *lengths])
    tokens = rng.integers(1, 256, (starts[-1] * by_token, model.text_dim), dtype=np.uint8)
    scale = np.full(len(tokens), 1 / 64, np.float16)
    for number, n in enumerate(sizes):
        keys = [f"{number:05d}{row:04d}" for row in range(n)]
        rows: dict[str, list[Any]] = {name: [0] * n for name in SCHEMA.names}
        rows |= {"key": keys, "url": keys, "sha256": keys, "split": [""] * n}
        rows |= {
            "caption": [f"made-up caption number {key} of a set that means nothing" for key in keys]
        }
        arrays = EncodedArrays(latents[:n], text[:n], np.array(keys, np.bytes_))
        if by_token:
            arrays = replace(
                arrays,
                tokens=tokens[: starts[n]],
                token_start=starts[: n + 1],
                token_scale=scale[: starts[n]],
            )
        write_encoded_shard(folder, f"{number:05d}", rows, arrays)
    shards = tuple(
        Shard(name=f"{number:05d}", rows=n, digest="", files={}) for number, n in enumerate(sizes)
    )
    return Manifest(
        stage="encode",
        version=1,
        fingerprint="",
        digest="",
        rows=pairs,
        shards=shards,
        figures=_figures(pairs, model).model_dump(mode="json"),
        settings={},
        parents={},
        made_by="",
        made_at="",
        seconds=0,
        folder=folder,
    )


def _figures(pairs: int, model: DenoiserConfig) -> EncodingsFigures:
    """Figures in the shapes of the model, as of encoders without a name or an error."""
    clip, by_token = 5.0, model.text == "tokens"
    quantization = Quantization(clip)
    return EncodingsFigures(
        encoders=EncoderNames(vae="", clip="", vae_identity="", clip_identity=""),
        codec=CodecFigures(
            scaling_factor=1, shift=0, latent_channels=model.latent_channels, downscale=8
        ),
        posterior="mean",
        quantization=QuantizationFigures(
            scale=quantization.scale, clip=clip, zero_point=ZERO_POINT
        ),
        quantization_bound=quantization.bound,
        latent_shape=(model.latent_channels, model.latent_size, model.latent_size),
        text_dim=model.text_dim,
        token_dim=model.text_dim if by_token else None,
        longest_caption=LONGEST_CAPTION if by_token else None,
        account=Account(
            rows=pairs, rejected={}, failed={}, downloaded=pairs, dropped={}, encoded=pairs
        ),
        statistics=LatentStatistics(
            quantization_rmse=0,
            quantization_rmse_sigma=0,
            clipped_fraction=0,
            latent_mean=0,
            latent_std=clip / 3**0.5,  # of even noise
            channel_std=(clip / 3**0.5,) * model.latent_channels,
            channel_largest=(clip,) * model.latent_channels,
            clip_score=0,
        ),
    )
