"""Form 1 of the data: the table of URLs and captions: read in pieces, checked, counted, digested.

Knows what a usable row is; fetches nothing, and never holds the table.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.shapes import dataset as shapes
from data_catalog.sources import source_at
from data_catalog.url_table.files import TableFile, TableMissing, UrlTableError, table_files
from data_catalog.url_table.formats import (
    SCHEMA,
    BadRow,
    RowBatch,
    TableColumns,
    check_columns,
    is_metadata,
    more_caption_roles,
    read_batches,
    rows_by_footer,
)
from data_catalog.url_table.row_checks import (
    BAD_ROW,
    MORE_CAPTIONS,
    REASONS,
    RejectReasons,
    RowRules,
    SeenUrls,
    check_rows,
    usable_captions,
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
    """Some usable rows of the table."""

    number: int
    # url, caption, split: string, row: int64; split is "train", "held_out" or "" (by key). With
    # further caption columns also more_captions: string, a JSON list with the caption of each, null
    # where it has none of use
    pairs: pa.Table

    @property
    def name(self) -> str:
        return f"{self.number:0{_DIGITS}d}"


@dataclass(slots=True)
class RowCounts:
    """Where the rows of a table went, so far as it was read."""

    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # cause -> rows

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
    """A table that is there and has its columns; nothing of it was kept."""

    source: str
    columns: TableColumns
    limit: int | None
    rules: RowRules

    def shards(self, shard_size: int, counts: RowCounts | None = None) -> Iterator[UrlShard]:
        """Usable rows in table order, `shard_size` at a time; the same ones each time.

        `account` is filled meanwhile, and complete at the end. Of rows with the same URL the first
        usable one wins. Raises UrlTableError where a file breaks off, or no row at all can be used.
        """
        counts = RowCounts() if counts is None else counts
        number, parts, waiting = 0, list[pa.RecordBatch](), 0
        for batch, verdicts in self._checked():
            _count(counts, batch, verdicts)
            usable = np.flatnonzero(verdicts == 0)
            while waiting + len(usable) >= shard_size:
                now, usable = np.split(usable, [shard_size - waiting])
                yield UrlShard(number, self._table([*parts, batch.rows.take(pa.array(now))]))
                number, parts, waiting = number + 1, [], 0
            if len(usable):
                parts.append(batch.rows.take(pa.array(usable)))
                waiting += len(usable)
        if parts:
            yield UrlShard(number, self._table(parts))
        if not counts.usable:
            causes = ", ".join(f"{cause}: {count}" for cause, count in counts.rejected.items())
            raise UrlTableError(f"no row of {self.source} can be used ({causes})")

    def rejected_rows(self) -> Iterator[Rejected]:
        """Every row that shards() leaves out, with its reason, in table order."""
        for batch, verdicts in self._checked():
            rejected = np.flatnonzero(verdicts)
            rows = [
                Rejected(row["row"], row["url"] or "", row["caption"] or "", REASONS[verdict])
                for row, verdict in zip(
                    batch.rows.take(pa.array(rejected)).to_pylist(), verdicts[rejected], strict=True
                )
            ]
            rows += [Rejected(bad.row, "", bad.text, BAD_ROW) for bad in batch.bad]
            yield from sorted(rows, key=lambda row: row.row)

    def _table(self, parts: list[pa.RecordBatch]) -> pa.Table:
        """One piece of memory of its own, with "" for a split that is not said."""
        table = pa.Table.from_batches(parts).combine_chunks()
        table = table.set_column(2, "split", pc.fill_null(table["split"], ""))
        roles = more_caption_roles(len(self.columns.more_captions))
        if not roles:
            return table
        more = [usable_captions(table[role], self.rules).to_pylist() for role in roles]
        texts = [json.dumps(captions, ensure_ascii=False) for captions in zip(*more, strict=True)]
        return table.drop_columns(roles).append_column(MORE_CAPTIONS, pa.array(texts, pa.string()))

    def _checked(self) -> Iterator[tuple[RowBatch, RejectReasons]]:
        seen = SeenUrls()
        for batch in self._batches():
            rows = with_clean_urls(batch.rows)
            yield RowBatch(rows, batch.bad), check_rows(rows, self.rules, seen)

    def _batches(self) -> Iterator[RowBatch]:
        """The rows up to the limit, numbered through all files."""
        if self.source == shapes.NAME:
            yield _up_to(_shapes_rows(), self.limit)
            return
        start = 0
        for file in _find_files(self.source, self.columns):
            first = start
            for batch in read_batches(file, self.columns):
                yield _up_to(_shifted(batch, first), self.limit)
                start += batch.size
                if self.limit is not None and start >= self.limit:
                    return


def open_url_table(
    source: str, columns: TableColumns, limit: int | None = None, rules: RowRules | None = None
) -> UrlTable:
    """Find a table by path, folder, fsspec URL or the name "shapes"; check its columns and first
    rows.

    Raises UrlTableError.
    """
    if source != shapes.NAME:
        files = _find_files(source, columns)
        for file in files:
            try:
                check_columns(file, columns)
            except UrlTableError as error:
                if len(files) == 1:
                    raise
                raise UrlTableError(
                    f"{error}; if it is no part of the table, take it out of {source}"
                ) from error
        if not any(_has_rows(file, columns) for file in files):
            raise UrlTableError(f"URL table {source} has columns but no rows")
    return UrlTable(source, columns, limit, rules or RowRules())


def url_table_digest(source: str) -> str:
    """SHA-256 of a table's content: of its files' bytes in order of their names, or of the built-in
    table's rows."""
    if source == shapes.NAME:
        rows = zip(*shapes.url_table().values(), strict=True)
        return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()
    digest = hashlib.sha256()
    for file in _find_files(source):
        for block in file.packed_blocks():
            digest.update(block)
    return digest.hexdigest()


def count_rows(source: str, columns: TableColumns) -> int:
    """Rows of a table, usable or not: of Parquet from its footers, of others by reading. Raises
    UrlTableError."""
    if source == shapes.NAME:
        return shapes.TRAIN_IMAGES + shapes.HELD_OUT_IMAGES
    return sum(
        rows
        if (rows := rows_by_footer(file)) is not None
        else sum(batch.size for batch in read_batches(file, columns))
        for file in _find_files(source, columns)
    )


def rows_known(source: str) -> int | None:
    """Rows of a table where that is known without reading it, or None."""
    counts = (
        [None] if source == shapes.NAME else [rows_by_footer(file) for file in _find_files(source)]
    )
    return None if None in counts else sum(count or 0 for count in counts)


def _find_files(source: str, columns: TableColumns | None = None) -> tuple[TableFile, ...]:
    """The files of a table, with `columns` less those that hold metadata; where a known table is
    missing, the error says where it comes from."""
    try:
        files = table_files(source)
    except TableMissing as error:
        if known := source_at(source):
            raise UrlTableError(f"{error}\n{known.how_to_get}") from error
        raise
    if columns is None or len(files) == 1:
        return files
    return tuple(file for file in files if not is_metadata(file, columns)) or files


def _has_rows(file: TableFile, columns: TableColumns) -> bool:
    return any(batch.size for batch in read_batches(file, columns))


def _shapes_rows() -> RowBatch:
    columns = shapes.url_table()
    numbers = {"row": range(len(columns["url"]))}
    return RowBatch(pa.RecordBatch.from_pydict(columns | numbers, schema=SCHEMA))


def _shifted(batch: RowBatch, first: int) -> RowBatch:
    """A batch of a file whose rows begin at number `first` of the table."""
    if not first:
        return batch
    numbers = pa.array(batch.rows["row"].to_numpy() + first)
    return RowBatch(
        batch.rows.set_column(3, "row", numbers),
        tuple(BadRow(bad.row + first, bad.text) for bad in batch.bad),
    )


def _up_to(batch: RowBatch, limit: int | None) -> RowBatch:
    """The rows whose numbers are below the limit."""
    if limit is None:
        return batch
    count = int(np.searchsorted(batch.rows["row"].to_numpy(), limit))
    return RowBatch(batch.rows.slice(0, count), tuple(bad for bad in batch.bad if bad.row < limit))


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
    if batch.bad:
        counts.rejected[BAD_ROW] += len(batch.bad)
