"""Manifests as stages would leave them beside made-up shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard


def encodings_manifest(folder: Path, sizes: Sequence[int], figures: dict[str, Any]) -> Manifest:
    """Of encoded shards 00000, 00001, … of so many rows, latents 4x4x4 and text 8 wide."""
    return Manifest(
        stage="encode",
        version=1,
        fingerprint="",
        digest="",
        rows=sum(sizes),
        shards=tuple(
            Shard(name=f"{i:05d}", rows=n, digest="", files={}) for i, n in enumerate(sizes)
        ),
        figures={"latent_shape": [4, 4, 4], "text_dim": 8, **figures},
        settings={},
        parents={},
        made_by="",
        made_at="",
        seconds=0,
        folder=folder,
    )
