"""Image shards (form 2 of the data): images with captions in tar files of webdataset layout.

The members of one pair share a key: 000010023.jpg, .txt, .json. Other members are skipped.
"""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from data_catalog.image_formats import open_image
from data_catalog.storage.manifest import ManifestError
from data_catalog.tar_samples import TarError, split_name, tar_samples
from data_catalog.url_table.packed_columns import KEPT_COLUMNS, MORE_CAPTIONS

Images = NDArray[np.uint8]  # [n, h, w, 3]
STORED_SUFFIXES = ("jpg", "png", "webp")
_EXPECTED = frozenset({*STORED_SUFFIXES, "txt", "json"})
_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 1 << 26
NO_IMAGE, OTHER_SIZE = "not an image any more", "image of another size than its shard's"
_REPAIR_HINT = (
    "repair it with `tld catalog verify … --repair`, or download all shards again with "
    "`tld download … --force`"
)


def _from_json(value: object) -> object:
    """Parse a value that is stored in JSON as JSON text."""
    return json.loads(value) if isinstance(value, str) else value


class UnreadableImage(ManifestError):
    """An image of a shard cannot be decoded."""


@dataclass(frozen=True, slots=True)
class ImagePair:
    """One image and its caption."""

    key: str
    url: str
    caption: str
    split: str  # "train", "held_out", or "" if the key decides
    image: NDArray[np.uint8]  # [h, w, 3]
    original_width: int
    original_height: int
    sha256: str  # of the downloaded file
    more_captions: tuple[str | None, ...] = ()  # of further caption columns, None if empty
    kept_columns: Mapping[str, str | None] = field(default_factory=dict)  # texts by column


class Facts(BaseModel):
    """The metadata in a pair's .json. Fields that only img2dataset uses are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    split: str
    original_width: int
    original_height: int
    sha256: str
    more_captions: Annotated[tuple[str | None, ...], BeforeValidator(_from_json)] = Field(
        (), alias=MORE_CAPTIONS
    )
    kept_columns: Annotated[dict[str, str | None], BeforeValidator(_from_json)] = Field(
        {}, alias=KEPT_COLUMNS
    )


@dataclass(frozen=True, slots=True)
class PackedPair:
    """One pair as it is stored in the tar, with the image not yet decoded."""

    key: str
    members: dict[str, bytes]  # suffix -> content
    facts: Facts

    @property
    def caption(self) -> str:
        return self.members["txt"].decode()

    @property
    def captions(self) -> dict[int, str]:
        """Number of the caption column (0 is the main one) -> caption, without missing ones."""
        numbered = enumerate((self.caption, *self.more_captions))
        return {number: caption for number, caption in numbered if caption is not None}

    @property
    def more_captions(self) -> tuple[str | None, ...]:
        return self.facts.more_captions

    @property
    def image_file(self) -> bytes:
        """The content of the image file, or nothing if the pair has none."""
        return next((self.members[name] for name in STORED_SUFFIXES if name in self.members), b"")

    def unpack(self, edge: int | None = None) -> ImagePair:
        """Decode the image, which must be a square of this edge if one is given. Raises
        UnreadableImage if it is damaged."""
        image = decode(self.image_file, edge)
        if isinstance(image, str):
            suffix = next((name for name in STORED_SUFFIXES if name in self.members), "*")
            raise UnreadableImage(f"{self.key}.{suffix} is {image}; " + _REPAIR_HINT)
        return ImagePair(
            key=self.key,
            url=self.facts.url,
            caption=self.caption,
            split=self.facts.split,
            image=image,
            original_width=self.facts.original_width,
            original_height=self.facts.original_height,
            sha256=self.facts.sha256,
            more_captions=self.more_captions,
            kept_columns=self.facts.kept_columns,
        )


def decode(content: bytes, edge: int | None = None) -> NDArray[np.uint8] | str:
    """Pixels [h, w, 3], or the reason why the image cannot be decoded.

    The size in the header is checked first, so that no huge image is decoded. OpenCV gives the same
    pixels as PIL in less time and releases the GIL.
    """
    try:
        with open_image(content, _FORMATS) as header:
            width, height = header.size
        if width * height > _MOST_PIXELS or (edge is not None and (width, height) != (edge, edge)):
            return OTHER_SIZE
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return NO_IMAGE
    return NO_IMAGE if image is None else np.asarray(image, np.uint8)


def read_packed_pairs(tar: Path) -> Iterator[PackedPair]:
    """Stream the pairs of one shard without decoding images. Raises ManifestError if the shard is
    damaged."""
    size = tar.stat().st_size
    try:
        with tar.open("rb") as stream:
            for sample in tar_samples(stream, size, lambda name: split_name(name)[1] in _EXPECTED):
                expected = {n: sample.members[n] for n in sample.members if n in _EXPECTED}
                members = {n: content for n, content in expected.items() if content is not None}
                if len(members) < len(expected):
                    raise TarError(f"{sample.key} has a member larger than the file")
                if members:
                    yield _packed(tar, sample.key, members)
    except TarError as error:
        raise ManifestError(f"{tar} is damaged ({error}); " + _REPAIR_HINT) from error


def _packed(tar: Path, key: str, members: dict[str, bytes]) -> PackedPair:
    """A pair whose caption and metadata were checked. Raises ManifestError if they are damaged."""
    try:
        members["txt"].decode()
        return PackedPair(key, members, Facts.model_validate_json(members["json"]))
    except (KeyError, ValueError) as error:
        why = "it lacks a member" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ManifestError(f"{tar} is damaged (pair {key}: {why}); " + _REPAIR_HINT) from None


def sample_image_pairs(tar: Path, count: int, rng: random.Random) -> list[ImagePair]:
    """A random sample of the pairs of one shard. Only these are read from disk."""
    with tarfile.open(tar, "r:") as archive:
        members = _members_by_key(archive)
        chosen = rng.sample(sorted(members), min(count, len(members)))
        return [_read_pair(tar, archive, key, members[key]) for key in chosen]


def read_image_pairs(tar: Path, keys: Sequence[str]) -> list[ImagePair]:
    """The pairs of one shard with these keys, in their order. Only these are read from disk."""
    with tarfile.open(tar, "r:") as archive:
        members = _members_by_key(archive)
        return [_read_pair(tar, archive, key, members[key]) for key in keys]


def _members_by_key(archive: tarfile.TarFile) -> dict[str, list[tarfile.TarInfo]]:
    by_key: dict[str, list[tarfile.TarInfo]] = {}
    for info in archive.getmembers():
        by_key.setdefault(info.name.partition(".")[0], []).append(info)
    return by_key


def _read_pair(
    tar: Path, archive: tarfile.TarFile, key: str, members: Sequence[tarfile.TarInfo]
) -> ImagePair:
    files = {info.name.partition(".")[2]: archive.extractfile(info) for info in members}
    contents = {suffix: file.read() for suffix, file in files.items() if file}
    return _packed(tar, key, contents).unpack()


def repack_sorted(source: Path, target: Path) -> int:
    """Copy a tar with its members sorted by name and without times or owners, so that equal pairs
    give equal bytes. Returns the number of pairs."""
    with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as new:
        members = sorted(old.getmembers(), key=lambda member: member.name)
        for member in members:
            clean = tarfile.TarInfo(member.name)
            clean.size = member.size
            new.addfile(clean, old.extractfile(member))
    return sum(member.name.endswith(".json") for member in members)
