"""Form 2 of the data: pictures with captions, streamed from tar shards in webdataset layout.

Members of one pair share a key: 000010023.jpg, .txt, .json. Knows nothing of models.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = ("jpg", "png", "webp")


@dataclass(frozen=True, slots=True)
class ImagePair:
    """One picture and its caption."""

    key: str
    url: str
    caption: str
    split: str  # "train", "held_out", or "" where the key decides
    image: NDArray[np.uint8]  # [h, w, 3]
    original_width: int
    original_height: int
    sha256: str  # of the file as it was downloaded


def read_image_pairs(tar: Path) -> Iterator[ImagePair]:
    """Stream the pairs of one shard, in the order of the tar."""
    import webdataset as wds

    for sample in wds.WebDataset(str(tar), shardshuffle=False, handler=wds.reraise_exception):
        suffix = next(name for name in IMAGE_SUFFIXES if name in sample)
        told: dict[str, Any] = json.loads(sample["json"])
        yield ImagePair(
            key=sample["__key__"],
            url=told["url"],
            caption=sample["txt"].decode(),
            split=told["split"],
            image=np.asarray(Image.open(io.BytesIO(sample[suffix])).convert("RGB")),
            original_width=told["original_width"],
            original_height=told["original_height"],
            sha256=told["sha256"],
        )


def repack_sorted(source: Path, target: Path) -> int:
    """Write a tar's members again, sorted by name and without times or owners, so that equal pairs give
    equal bytes. Returns how many pairs it holds."""
    with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as new:
        members = sorted(old.getmembers(), key=lambda member: member.name)
        for member in members:
            clean = tarfile.TarInfo(member.name)
            clean.size = member.size
            new.addfile(clean, old.extractfile(member))
    return sum(member.name.endswith(".json") for member in members)
