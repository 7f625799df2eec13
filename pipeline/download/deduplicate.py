"""Leaves out images that repeat an earlier one: the same file, or one that looks the same."""

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
    out: Path, receipts: Sequence[Shard], same_file: bool, near_bits: int | None
) -> tuple[list[Shard], Counter[str]]:
    """The shards without pictures that repeat an earlier one, and how many went by reason. The
    pictures stay in their tars: NNNNN.dropped.parquet names those that the next stage leaves
    out."""
    dropped: Counter[str] = Counter()
    if not same_file and near_bits is None:
        return [_undropped(out, receipt) for receipt in receipts], dropped
    files, looks = list[Hashes](), list[Hashes]()
    for receipt in receipts:
        rows = _pictures(out, receipt, ["sha256", "look"])
        files.append(_first_64_bits(rows["sha256"]))
        if near_bits is not None:
            looks.append(_first_64_bits(rows["look"]))
    every_file = (
        np.concatenate(files) if same_file else np.arange(sum(map(len, files)), dtype=np.uint64)
    )
    found = find_duplicates(every_file, np.concatenate(looks) if looks else None, near_bits or 0)

    shards, start = [], 0
    for receipt, pictures in zip(receipts, map(len, files), strict=True):
        part = slice(start, start + pictures)
        start += pictures
        reasons = [
            SAME_FILE if same >= 0 else LOOKS_THE_SAME if like >= 0 else None
            for same, like in zip(found.same_file[part], found.looks_the_same[part], strict=True)
        ]
        gone: list[dict[str, str]] = []
        if any(reasons):
            told = _pictures(out, receipt, ["key", "url", "caption"])
            told = told.append_column("reason", pa.array(reasons, pa.string()))
            gone = told.filter(pc.is_valid(told["reason"])).to_pylist()
        dropped.update(row["reason"] for row in gone)
        shards.append(_without(out, receipt, gone))
    return shards, dropped


def _pictures(out: Path, receipt: Shard, columns: list[str]) -> pa.Table:
    """Some columns of the rows of a shard that became pictures."""
    rows = parquet.read_table(
        ensure_local(out / f"{receipt.name}.parquet"), columns=[*columns, "status"]
    )
    return rows.filter(pc.equal(rows["status"], "success")).select(columns)


def _first_64_bits(digests: pa.ChunkedArray) -> Hashes:
    return np.array([int(digest[:16], 16) for digest in digests.to_pylist()], dtype=np.uint64)


def _undropped(out: Path, receipt: Shard) -> Shard:
    discard([dropped_file(out, receipt.name)])
    return receipt


def _without(out: Path, receipt: Shard, gone: list[dict[str, str]]) -> Shard:
    """A shard less its dropped rows; they enter its digest, since they change what it means."""
    if not gone:
        return _undropped(out, receipt)
    path = write_dropped(out, receipt.name, gone)
    return receipt.model_copy(
        update={
            "rows": receipt.rows - len(gone),
            "digest": f"{receipt.digest} less {file_digest(path)}",
            "files": {**receipt.files, **file_records([path])},
        }
    )
