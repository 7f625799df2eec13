"""Pairs of duplicates: each image that was dropped, and the earlier one that it repeats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_catalog.deduplication import HASH_BITS, Hashes, find_duplicates
from pipeline.browse.read_rows import read_columns
from pipeline.browse.rows import BrowsedRows
from pipeline.config.download import DownloadConfig
from pipeline.download.deduplicate import LOOKS_THE_SAME, SAME_FILE

_HEX_DIGITS = HASH_BITS // 4
DUPLICATE_REASONS = (f"download: {SAME_FILE}", f"download: {LOOKS_THE_SAME}")


@dataclass(frozen=True, slots=True)
class DuplicatePairs:
    """n pairs, the most different ones first."""

    dropped: NDArray[np.int64]  # [n], row numbers
    repeated: NDArray[np.int64]  # [n], row numbers of what they repeat
    bits: NDArray[np.int8]  # [n], in which the perceptual hashes differ; -1 for the same file

    @property
    def same_file(self) -> NDArray[np.bool_]:
        return self.bits < 0


def pair_duplicates(rows: BrowsedRows, folder: Path, config: DownloadConfig) -> DuplicatePairs:
    """Pair the dropped duplicates of a finished download, by the hashes that it stored: 16 bytes
    an image are in memory."""
    is_dropped = rows.reasons.equal(DUPLICATE_REASONS[0]) | rows.reasons.equal(DUPLICATE_REASONS[1])
    numbers = rows.images
    if not is_dropped.any():
        nothing = np.zeros(0, np.int64)
        return DuplicatePairs(nothing, nothing, np.zeros(0, np.int8))
    by_looks = config.near_duplicate_bits is not None
    files, looks = _hashes(rows, folder, with_looks=by_looks)
    assert len(files) == len(numbers), "one hash for each image"
    found_pairs = find_duplicates(
        files if config.drop_duplicates else np.arange(len(files), dtype=np.uint64),
        looks if by_looks else None,
        config.near_duplicate_bits or 0,
    )
    earlier = np.maximum(found_pairs.same_file, found_pairs.looks_the_same)
    repeats = np.flatnonzero((earlier >= 0) & is_dropped[numbers])
    of = earlier[repeats]
    bits = np.full(len(repeats), -1, np.int8)
    if by_looks:
        differing = np.bitwise_count(looks[repeats] ^ looks[of]).astype(np.int8)
        bits = np.where(found_pairs.same_file[repeats] >= 0, np.int8(-1), differing)
    order = np.argsort(-bits, kind="stable")
    return DuplicatePairs(numbers[repeats][order], numbers[of][order], bits[order])


def _hashes(rows: BrowsedRows, folder: Path, *, with_looks: bool) -> tuple[Hashes, Hashes]:
    """The first 64 bits of each image's SHA-256 and its perceptual hash, in the order of
    `rows.images`."""
    columns = ["sha256", *(["look"] if with_looks else [])]
    files, looks = list[Hashes](), list[Hashes]()
    for shard in rows.shards.names:
        if shard:
            stored = read_columns(folder, shard, [*columns, "status"])
            stored = stored.filter(pa.compute.equal(stored["status"], "success"))
            files.append(_first_64_bits(stored["sha256"]))
            if with_looks:
                looks.append(_first_64_bits(stored["look"]))
    return np.concatenate(files), np.concatenate(looks or [np.zeros(0, np.uint64)])


def _first_64_bits(digests: pa.ChunkedArray) -> Hashes:
    digits = "".join(
        (text or "")[:_HEX_DIGITS].rjust(_HEX_DIGITS, "0") for text in digests.to_pylist()
    )
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
