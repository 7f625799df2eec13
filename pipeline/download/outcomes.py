"""Outcomes of a download: what became of each row, by cause and host, and which rows to retry.

The counts come from the tables that the finished shards contain; nothing is fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.figures import ImageShardFigures
from data_catalog.image_sources.source import origin_of
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.receipts import Shard, finished_shards
from data_catalog.url_table.packed_columns import PACKED_COLUMNS
from data_catalog.url_table.table import UrlShard
from pipeline.download.http.failure_causes import is_transient

LOST = "lost inside img2dataset"
SIDES = (
    64,
    128,
    256,
    512,
    1024,
    2048,
    4096,
)  # bin edges of the size histogram: short side in pixels
_MAX_HOSTS = 100_000
_PAIR = ["url", "caption", "split", "row"]


@dataclass(slots=True)
class DownloadCounts:
    """The rows of a download, counted by the outcome of their last try."""

    downloaded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    # Host, or the tar, Parquet file or folder of images that exist already -> images.
    requests_by_host: Counter[str] = field(default_factory=Counter)
    failures_by_host: Counter[str] = field(default_factory=Counter)
    short_sides: Counter[int] = field(default_factory=Counter)  # histogram bin -> number of images


def tally(out: Path, receipts: Iterable[Shard]) -> DownloadCounts:
    """Count the rows of all shards. Only the last try of a retried row counts."""
    counts, last_try = DownloadCounts(), last_tries(out, receipts)
    for receipt in receipts:
        rows = parquet.read_table(
            ensure_local(out / f"{receipt.name}.parquet"),
            columns=["row", "url", "status", "error_message", "original_width", "original_height"],
        )
        if last_try:
            rows = rows.filter(
                [last_try.get(row, receipt.name) == receipt.name for row in rows["row"].to_pylist()]
            )
        succeeded = pc.equal(rows["status"], "success")
        counts.downloaded += pc.sum(succeeded).as_py() or 0
        counts.failed.update(rows.filter(pc.invert(succeeded))["error_message"].to_pylist())
        counts.failed[LOST] += ImageShardFigures.of(receipt).failed.get(LOST, 0)
        _count_hosts(counts, rows, succeeded)
        images = rows.filter(succeeded)
        shorter = pc.min_element_wise(
            images["original_width"], images["original_height"]
        ).to_numpy()
        counts.short_sides.update(np.digitize(shorter, SIDES).tolist())
    counts.failed = +counts.failed
    return counts


def _count_hosts(counts: DownloadCounts, rows: pa.Table, succeeded: pa.ChunkedArray) -> None:
    hosts = [origin_of(url) for url in rows["url"].to_pylist()]
    counts.requests_by_host.update(hosts)
    counts.failures_by_host.update(
        host for host, success in zip(hosts, succeeded.to_pylist(), strict=True) if not success
    )
    for by_host in (counts.requests_by_host, counts.failures_by_host):
        if len(by_host) > _MAX_HOSTS:  # keep the largest: the report shows no others
            heaviest = dict(by_host.most_common(_MAX_HOSTS // 2))
            by_host.clear()
            by_host.update(heaviest)


def later_shards(out: Path, done: dict[str, Shard]) -> dict[str, Shard]:
    """Finished shards after the last one of the table. They contain retried rows."""
    last = max(done, default="")
    return {shard.name: shard for shard in finished_shards(out) if shard.name > last}


def retryable_rows(out: Path, names: Sequence[str], shard_size: int) -> Iterator[UrlShard]:
    """The rows whose last try failed for a transient reason, as new shards numbered after all
    others."""
    columns = parquet.read_schema(ensure_local(out / f"{names[0]}.parquet")).names
    pair_columns = [*_PAIR, *(name for name in PACKED_COLUMNS if name in columns)]
    retryable: dict[int, dict[str, Any]] = {}
    for name in names:
        rows = parquet.read_table(
            ensure_local(out / f"{name}.parquet"),
            columns=[*pair_columns, "status", "error_message"],
        )
        for row in rows.to_pylist():
            if row["status"] != "success" and is_transient(row["error_message"]):
                retryable[row["row"]] = {column: row[column] for column in pair_columns}
            else:
                retryable.pop(row["row"], None)
    pairs = [retryable[row] for row in sorted(retryable)]
    first = int(names[-1]) + 1
    schema = pa.schema(
        [(column, pa.int64() if column == "row" else pa.string()) for column in pair_columns]
    )
    for number, start in enumerate(range(0, len(pairs), shard_size), first):
        yield UrlShard(number, pa.Table.from_pylist(pairs[start : start + shard_size], schema))


def last_tries(out: Path, receipts: Iterable[Shard]) -> dict[int, str]:
    """Row -> the last shard that contains it, for the rows that were retried."""
    last_row, retried = -1, dict[int, str]()
    for receipt in receipts:
        rows = parquet.read_table(ensure_local(out / f"{receipt.name}.parquet"), columns=["row"])[
            "row"
        ].to_numpy()
        if (
            len(rows) and rows.min() <= last_row
        ):  # row numbers only increase within the table's own shards
            retried |= dict.fromkeys(rows.tolist(), receipt.name)
        elif len(rows):
            last_row = int(rows.max())
    return retried
