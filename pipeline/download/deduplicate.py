"""Deduplication of downloaded images, by the hash of the file and by perceptual hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.deduplication import Hashes, find_duplicates
from data_catalog.excluded_rows import dropped_file, write_dropped
from data_catalog.storage.cached_files import discard, ensure_local
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.receipts import Shard

SAME_FILE = "the same file as another URL's"
LOOKS_THE_SAME = "looks the same as another picture"


def drop_duplicates(
    out: Path, receipts: Sequence[Shard], near_bits: int | None, *, same_file: bool
) -> tuple[list[Shard], Counter[str]]:
    """Exclude images that repeat an earlier one.

    Returns the receipts without the excluded rows, and the number of excluded images by reason. The
    images stay in their tars: NNNNN.dropped.parquet lists those that the next stage skips.
    """
    dropped: Counter[str] = Counter()
    if not same_file and near_bits is None:
        return [_keep_all(out, receipt) for receipt in receipts], dropped
    files, looks = list[Hashes](), list[Hashes]()
    for receipt in receipts:
        rows = _image_rows(out, receipt, ["sha256", "look"])
        files.append(_first_64_bits(rows["sha256"]))
        if near_bits is not None:
            looks.append(_first_64_bits(rows["look"]))
    every_file = (
        np.concatenate(files) if same_file else np.arange(sum(map(len, files)), dtype=np.uint64)
    )
    duplicates = find_duplicates(
        every_file, np.concatenate(looks) if looks else None, near_bits or 0
    )

    shards, start = [], 0
    for receipt, count in zip(receipts, map(len, files), strict=True):
        part = slice(start, start + count)
        start += count
        reasons = [
            SAME_FILE if same >= 0 else LOOKS_THE_SAME if like >= 0 else None
            for same, like in zip(
                duplicates.same_file[part], duplicates.looks_the_same[part], strict=True
            )
        ]
        excluded: list[dict[str, str]] = []
        if any(reasons):
            repeats = _image_rows(out, receipt, ["key", "url", "caption"])
            repeats = repeats.append_column("reason", pa.array(reasons, pa.string()))
            excluded = repeats.filter(pc.is_valid(repeats["reason"])).to_pylist()
        dropped.update(row["reason"] for row in excluded)
        shards.append(_exclude(out, receipt, excluded))
    return shards, dropped


def _image_rows(out: Path, receipt: Shard, columns: list[str]) -> pa.Table:
    """Some columns of the rows of a shard that became images."""
    rows = parquet.read_table(
        ensure_local(out / f"{receipt.name}.parquet"), columns=[*columns, "status"]
    )
    return rows.filter(pc.equal(rows["status"], "success")).select(columns)


def _first_64_bits(digests: pa.ChunkedArray) -> Hashes:
    return np.array([int(digest[:16], 16) for digest in digests.to_pylist()], dtype=np.uint64)


def _keep_all(out: Path, receipt: Shard) -> Shard:
    discard([dropped_file(out, receipt.name)])
    return receipt


def _exclude(out: Path, receipt: Shard, excluded: list[dict[str, str]]) -> Shard:
    """The receipt without the excluded rows, whose list becomes part of the digest because it
    changes what the shard contains."""
    if not excluded:
        return _keep_all(out, receipt)
    path = write_dropped(out, receipt.name, excluded)
    return receipt.model_copy(
        update={
            "rows": receipt.rows - len(excluded),
            "digest": f"{receipt.digest} less {file_digest(path)}",
            "files": {**receipt.files, **file_records([path])},
        }
    )
