"""Image shards as the download leaves them, without a download; and shards mapped in this
process."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data_catalog.images import ImagePair, read_packed_pairs
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.manifest import Manifest, content_digest
from data_catalog.storage.receipts import Shard
from tests.support.manifests import images_figures


def write_tar(path: Path, first: int, captions: Sequence[str], pictures: Sequence[Any]) -> None:
    """Pairs numbered from `first` on: png, txt, json, and a member that no one expects."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (caption, picture) in enumerate(zip(captions, pictures, strict=True), first):
            png = io.BytesIO()
            Image.fromarray(picture).save(png, format="PNG")
            told = {
                "url": f"http://x/{number}",
                "split": "",
                "original_width": 64,
                "original_height": 64,
                "sha256": "",
            }
            members = {
                "json": json.dumps(told).encode(),
                "pickle": b"?",
                "png": png.getvalue(),
                "txt": caption.encode(),
            }
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:07d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def make_images(folder: Path, sizes: Sequence[int] = (12, 9)) -> Manifest:
    """Shards of drawings, every other one with a partial caption, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = list(shapes.drawings(sum(sizes), held_out=False, seed=3))
    shards, first = [], 0
    for number, size in enumerate(sizes):
        tar = folder / f"{number:05d}.tar"
        part = drawings[first : first + size]
        write_tar(
            tar,
            first,
            [
                drawing.partial_caption(1) if row % 2 else drawing.attributes.caption
                for row, drawing in enumerate(part)
            ],
            [drawing.pixels() for drawing in part],
        )
        shards.append(
            Shard(name=tar.stem, rows=size, digest=file_digest(tar), files=file_records([tar]))
        )
        first += size
    return images_manifest(folder, shards)


def images_manifest(folder: Path, shards: Sequence[Shard]) -> Manifest:
    """What stands beside image shards."""
    rows = sum(shard.rows for shard in shards)
    return Manifest(
        stage="download",
        version=1,
        fingerprint="f",
        digest=content_digest(shards),
        rows=rows,
        shards=tuple(shards),
        figures=images_figures(rows).model_dump(mode="json"),
        settings={},
        parents={},
        made_by="",
        made_at="",
        seconds=0,
        folder=folder,
    )


def read_image_pairs(tar: Path) -> Iterator[ImagePair]:
    """Stream the pairs of one shard, in the order of the tar. Raises ManifestError where it is
    damaged."""
    return (packed.unpack() for packed in read_packed_pairs(tar))
