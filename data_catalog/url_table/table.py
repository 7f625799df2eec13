"""The table of URLs and captions (form 1 of the data): opening, checks, row counts and shards.

The table is streamed and never held in memory as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.shapes import dataset as shapes
from data_catalog.url_table.built_in import built_in_digest, built_in_rows
from data_catalog.url_table.captions import CaptionTable
from data_catalog.url_table.files import TableFile, UrlTableError
from data_catalog.url_table.formats import (
    RowBatch,
    TableColumns,
    bytes_digest,
    check_columns,
    read_batches,
    rows_by_footer,
)
from data_catalog.url_table.numbered_rows import find_files, numbered_batches
from data_catalog.url_table.packed_columns import pack_columns
from data_catalog.url_table.row_checks import (
    REASONS,
    RejectReasons,
    RowRules,
    SeenUrls,
    check_rows,
    with_clean_urls,
)

__all__ = [
    "Rejected",
    "RowCounts",
    "RowRules",
    "TableColumns",
    "UrlShard",
    "UrlTable",
    "UrlTableError",
    "count_rows",
    "open_url_table",
    "rows_known",
    "url_table_digest",
]
_DIGITS = 5  # of a shard's number


@dataclass(frozen=True, slots=True)
class UrlShard:
    """A shard of usable rows of the table."""

    number: int
    # Columns: url, caption and split (string), row (int64). split is "train", "held_out" or "" (the
    # key decides). With further caption columns or columns to keep, those of packed_columns.py.
    pairs: pa.Table
    # Changes with the files that the images of the shard come from; "" for images of the web.
    version: str = ""

    @property
    def name(self) -> str:
        return f"{self.number:0{_DIGITS}d}"


@dataclass(slots=True)
class RowCounts:
    """Counts of the rows that were read so far, and of the rejected ones by cause."""

    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # cause -> rows
    unused_captions: int = 0  # of a table of captions: those whose key no row has

    @property
    def usable(self) -> int:
        return self.rows - self.rejected.total()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used."""

    row: int  # from 0
    url: str
    caption: str
    reason: str


@dataclass(frozen=True, slots=True)
class UrlTable:
    """A table that exists and has the required columns. Its content is not in memory."""

    source: str
    columns: TableColumns
    rules: RowRules
    batches: Callable[[], Iterator[RowBatch]]
    """All rows up to the limit, numbered from 0. With `captions` their captions are keys."""
    rows_about: Callable[[], int]
    """The number of rows up to the limit, an estimate for tars. A URL table that is not Parquet is
    read for it."""
    captions: CaptionTable | None = None
    version_of: Callable[[list[str]], str] | None = None
    """Digest of the files of these addresses; None for URLs."""

    def shards(self, shard_size: int, counts: RowCounts | None = None) -> Iterator[UrlShard]:
        """Yield the usable rows in table order, `shard_size` at a time; every call gives the same.

        `counts` is updated on the way and complete at the end. Of several rows with the same URL
        the first usable one is taken. Raises UrlTableError if a file is cut off, or if the table
        has no usable row.
        """
        counts = RowCounts() if counts is None else counts
        number, parts, waiting = 0, list[pa.RecordBatch](), 0
        for batch, verdicts in self._checked():
            _count(counts, batch, verdicts)
            usable = np.flatnonzero(verdicts == 0)
            while waiting + len(usable) >= shard_size:
                now, usable = np.split(usable, [shard_size - waiting])
                yield self._shard(number, [*parts, batch.rows.take(pa.array(now))])
                number, parts, waiting = number + 1, [], 0
            if len(usable):
                parts.append(batch.rows.take(pa.array(usable)))
                waiting += len(usable)
        if parts:
            yield self._shard(number, parts)
        counts.unused_captions = self.captions.unused if self.captions else 0
        if not counts.usable:
            causes = ", ".join(f"{cause}: {count}" for cause, count in counts.rejected.items())
            raise UrlTableError(f"{self.source} has no usable row ({causes})")

    def rejected_rows(self) -> Iterator[Rejected]:
        """Yield every row that `shards` leaves out, with the reason, in table order."""
        for batch, verdicts in self._checked():
            rejected = np.flatnonzero(verdicts)
            rows = [
                Rejected(row["row"], row["url"] or "", row["caption"] or "", REASONS[verdict])
                for row, verdict in zip(
                    batch.rows.take(pa.array(rejected)).to_pylist(), verdicts[rejected], strict=True
                )
            ]
            rows += [Rejected(bad.row, "", bad.text, bad.reason) for bad in batch.bad]
            yield from sorted(rows, key=lambda row: row.row)

    def _shard(self, number: int, parts: list[pa.RecordBatch]) -> UrlShard:
        pairs = self._table(parts)
        version = self.version_of(pairs["url"].to_pylist()) if self.version_of else ""
        return UrlShard(number, pairs, version)

    def _table(self, parts: list[pa.RecordBatch]) -> pa.Table:
        """Join batches into a table of contiguous memory, with "" for a missing split."""
        table = pa.Table.from_batches(parts).combine_chunks()
        table = table.set_column(2, "split", pc.fill_null(table["split"], ""))
        return pack_columns(table, self.columns, self.rules)

    def _checked(self) -> Iterator[tuple[RowBatch, RejectReasons]]:
        seen = SeenUrls()
        if self.captions:
            self.captions.start()
        for batch in self.batches():
            rows = with_clean_urls(batch.rows) if self.rules.from_web else batch.rows
            rows = self.captions.join(rows) if self.captions else rows
            yield RowBatch(rows, batch.bad), check_rows(rows, self.rules, seen)


def open_url_table(
    source: str, columns: TableColumns, limit: int | None = None, rules: RowRules | None = None
) -> UrlTable:
    """Find a table by path, folder, fsspec URL or the name "shapes", and check its columns and
    first rows. Raises UrlTableError if it is missing or cannot be used."""
    if source == shapes.NAME:
        built_in_rows(columns)
    else:
        files = find_files(source, columns)
        for file in files:
            try:
                check_columns(file, columns)
            except UrlTableError as error:
                if len(files) == 1:
                    raise
                raise UrlTableError(
                    f"{error}; if this file is not part of the table, move it out of {source}"
                ) from error
        if not any(_has_rows(file, columns) for file in files):
            raise UrlTableError(f"URL table {source} has columns but no rows")
    return UrlTable(
        source,
        columns,
        rules or RowRules(),
        lambda: numbered_batches(source, columns, limit),
        lambda: min(count_rows(source, columns), limit or 2**63),
    )


def url_table_digest(source: str, columns: TableColumns) -> str:
    """SHA-256 of a table's content: of the bytes of its files, sorted by name, or of the chosen
    columns of the built-in table."""
    if source == shapes.NAME:
        return built_in_digest(columns)
    return bytes_digest(find_files(source))


def count_rows(source: str, columns: TableColumns) -> int:
    """The number of rows in a table, usable or not. For Parquet it comes from the footers; other
    formats are read. Raises UrlTableError if a file cannot be read."""
    if source == shapes.NAME:
        return shapes.TRAIN_IMAGES + shapes.HELD_OUT_IMAGES
    return sum(
        rows
        if (rows := rows_by_footer(file)) is not None
        else sum(batch.size for batch in read_batches(file, columns))
        for file in find_files(source, columns)
    )


def rows_known(source: str) -> int | None:
    """The number of rows in a table if it is known without reading the table, or None."""
    counts = (
        [None] if source == shapes.NAME else [rows_by_footer(file) for file in find_files(source)]
    )
    return None if None in counts else sum(count or 0 for count in counts)


def _has_rows(file: TableFile, columns: TableColumns) -> bool:
    return any(batch.size for batch in read_batches(file, columns))


def _count(counts: RowCounts, batch: RowBatch, verdicts: RejectReasons) -> None:
    counts.rows += batch.size
    by_reason = np.bincount(verdicts, minlength=len(REASONS))
    counts.rejected.update(
        {
            cause: int(count)
            for cause, count in zip(REASONS, by_reason, strict=True)
            if cause and count
        }
    )
    counts.rejected.update(bad.reason for bad in batch.bad)
