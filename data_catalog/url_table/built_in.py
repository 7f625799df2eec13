"""The built-in data set as a URL table, of which settings choose columns as of any other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from data_catalog.shapes.columns import COLUMNS, column
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import RowBatch, TableColumns, as_batch, find_columns


def built_in_rows(columns: TableColumns) -> RowBatch:
    """All rows. Raises UrlTableError if there is no such column."""
    texts = _texts(columns)
    arrays = {role: pa.array(texts_of_role, pa.string()) for role, texts_of_role in texts.items()}
    return as_batch(arrays, range(len(texts["url"])))


def built_in_digest(columns: TableColumns) -> str:
    """SHA-256 of the texts in the chosen columns, row by row."""
    rows = zip(*_texts(columns).values(), strict=True)
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()


def _texts(columns: TableColumns) -> dict[str, Sequence[str]]:
    """The texts of each role. The split is always that of the data set."""
    places, missing = find_columns(replace(columns, split="split"), COLUMNS)
    lists = [columns.names[role] for role, place in places.items() if place.element]
    if missing or lists:
        raise UrlTableError(
            f"the built-in data set has no column {', '.join(map(repr, [*missing, *lists]))}; its "
            f"columns are {', '.join(map(repr, COLUMNS))}"
        )
    return {role: column(place.column) for role, place in places.items()}
