"""Row batches of a whole table, numbered across its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from data_catalog.shapes import dataset as shapes
from data_catalog.sources import source_at
from data_catalog.url_table.built_in import built_in_rows
from data_catalog.url_table.files import TableFile, TableMissing, UrlTableError, table_files
from data_catalog.url_table.formats import is_metadata, read_batches
from data_catalog.url_table.rows import RowBatch, TableColumns


def numbered_batches(
    source: str, columns: TableColumns, limit: int | None = None
) -> Iterator[RowBatch]:
    """The rows of a table up to the limit, numbered across all files."""
    if source == shapes.NAME:
        yield _up_to(built_in_rows(columns), limit)
        return
    start = 0
    for file in find_files(source, columns):
        first = start
        for batch in read_batches(file, columns):
            yield _up_to(_shifted(batch, first), limit)
            start += batch.size
            if limit is not None and start >= limit:
                return


def renumbered(batches: Iterable[RowBatch], limit: int | None = None) -> Iterator[RowBatch]:
    """Batches up to the limit with consecutive numbers, whatever numbers they begin with."""
    start = 0
    for batch in batches:
        if batch.size:
            numbers = batch.rows["row"].to_pylist()[:1] + [bad.row for bad in batch.bad[:1]]
            yield _up_to(_shifted(batch, start - min(numbers)), limit)
        start += batch.size
        if limit is not None and start >= limit:
            return


def first_batches(batches: Iterable[RowBatch], rows: int) -> list[RowBatch]:
    """The first batches that have at least so many rows together, or all."""
    first = list[RowBatch]()
    for batch in batches:
        first.append(batch)
        if sum(b.size for b in first) >= rows:
            break
    return first


def find_files(source: str, columns: TableColumns | None = None) -> tuple[TableFile, ...]:
    """The files of a table, without metadata files if `columns` are given. If the table of a known
    data set is missing, the error says where to get it."""
    try:
        files = table_files(source)
    except TableMissing as error:
        if known := source_at(source):
            raise UrlTableError(f"{error}\n{known.how_to_get}") from error
        raise
    if columns is None or len(files) == 1:
        return files
    return tuple(file for file in files if not is_metadata(file, columns)) or files


def _shifted(batch: RowBatch, first: int) -> RowBatch:
    """A batch with all its numbers raised by `first`."""
    if not first:
        return batch
    numbers = pa.array(batch.rows["row"].to_numpy() + first)
    return RowBatch(
        batch.rows.set_column(3, "row", numbers),
        tuple(replace(bad, row=bad.row + first) for bad in batch.bad),
    )


def _up_to(batch: RowBatch, limit: int | None) -> RowBatch:
    """The rows with numbers below the limit."""
    if limit is None:
        return batch
    count = int(np.searchsorted(batch.rows["row"].to_numpy(), limit))
    return RowBatch(batch.rows.slice(0, count), tuple(bad for bad in batch.bad if bad.row < limit))
