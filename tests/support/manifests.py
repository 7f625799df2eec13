"""Manifests as stages would leave them beside made-up shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.figures import EncoderNames, EncodingsFigures, ImagesFigures
from data_catalog.latent_figures import CodecFigures, LatentStatistics, QuantizationFigures
from data_catalog.row_counts import Account
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard

ENCODERS = EncoderNames(
    vae="shapes-vae", clip="shapes-clip", vae_identity="a VAE", clip_identity="a CLIP model"
)


def images_figures(rows: int) -> ImagesFigures:
    """Of images of which none failed."""
    return ImagesFigures(account=_account(rows), may_pass=0, bytes=0, images_per_s=0)


def encodings_figures(rows: int) -> EncodingsFigures:
    """Of latents 4x4x4 and text 8 wide."""
    return EncodingsFigures(
        encoders=ENCODERS,
        codec=CodecFigures(scaling_factor=1, shift=0, latent_channels=4, downscale=8),
        posterior="mean",
        quantization=QuantizationFigures(scale=4 / 127, clip=4, zero_point=128),
        quantization_bound=4 / 254,
        latent_shape=(4, 4, 4),
        text_dim=8,
        account=_account(rows),
        statistics=LatentStatistics(
            quantization_rmse=0,
            quantization_rmse_sigma=0,
            clipped_fraction=0,
            latent_mean=0,
            latent_std=1,
            channel_std=(1, 1, 1, 1),
            channel_largest=(4, 4, 4, 4),
            clip_score=0,
        ),
    )


def _account(rows: int) -> Account:
    return Account(rows=rows, rejected={}, failed={}, downloaded=rows, dropped={})


def encodings_manifest(folder: Path, sizes: Sequence[int], **changed: Any) -> Manifest:
    """Of encoded shards 00000, 00001, … of so many rows, with changed figures."""
    figures = encodings_figures(sum(sizes)).model_copy(update=changed)
    return Manifest(
        stage="encode",
        version=1,
        fingerprint="",
        digest="",
        rows=sum(sizes),
        shards=tuple(
            Shard(name=f"{i:05d}", rows=n, digest="", files={}) for i, n in enumerate(sizes)
        ),
        figures=figures.model_dump(mode="json"),
        settings={},
        parents={},
        made_by="",
        made_at="",
        seconds=0,
        folder=folder,
    )
