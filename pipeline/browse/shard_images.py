"""Stored images by shard and key, read from tars on demand."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_catalog.images import STORED_SUFFIXES
from data_catalog.storage.cached_files import ensure_local
from data_catalog.tar_samples import split_name

_MOST_TARS = 64  # indexed at once: 25 bytes an image


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image file as it is in a tar."""

    suffix: str  # one of STORED_SUFFIXES
    content: bytes


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Where the images of a tar are."""

    keys: NDArray[np.bytes_]  # [n], sorted
    starts: NDArray[np.int64]  # [n], of the contents
    sizes: NDArray[np.int64]  # [n]
    suffixes: NDArray[np.int8]  # [n], indices into STORED_SUFFIXES


class ShardImages:
    """The images of a folder of shards. Tars are indexed when an image of theirs is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = lru_cache(_MOST_TARS)(index_tar)

    def image(self, shard: str, key: str) -> StoredImage | None:
        """An image, or None if its tar was deleted on purpose, is damaged or lacks it."""
        path = ensure_local(self.folder / f"{shard}.tar")
        try:
            status = path.stat()
            index = self._index(path, status.st_size, status.st_mtime_ns)
            wanted_key = key.encode()
            place = int(np.searchsorted(index.keys, wanted_key))
            if place == len(index.keys) or index.keys[place] != wanted_key:
                return None
            with path.open("rb") as file:
                file.seek(index.starts[place])
                content = file.read(index.sizes[place])
        except (OSError, tarfile.TarError):
            return None
        return StoredImage(STORED_SUFFIXES[index.suffixes[place]], content)


def index_tar(path: Path, size: int, _modified_ns: int) -> TarIndex:
    """Index a tar of this size. Members that would end behind it are left out. Raises TarError if
    it is damaged."""
    entries: dict[bytes, tuple[int, int, int]] = {}
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            key, suffix = split_name(info.name)
            is_whole = info.isreg() and info.offset_data + info.size <= size
            if suffix in STORED_SUFFIXES and is_whole:
                place = (info.offset_data, info.size, STORED_SUFFIXES.index(suffix))
                entries.setdefault(key.encode(errors="replace"), place)
            archive.members.clear()  # type: ignore[attr-defined]
    keys = sorted(entries)
    places = np.array([entries[key] for key in keys], np.int64).reshape(-1, 3)
    return TarIndex(
        np.array(keys, np.bytes_), places[:, 0], places[:, 1], places[:, 2].astype(np.int8)
    )
