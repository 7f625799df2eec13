"""Further columns of usable rows, packed as JSON text because img2dataset passes on only strings:
the other captions of an image, and the columns that are kept as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.url_table.row_checks import RowRules, usable_captions
from data_catalog.url_table.rows import LONGEST_CELL, TableColumns, keep_roles, more_caption_roles

# A list with the caption of each further caption column, null if it cannot be used.
MORE_CAPTIONS = "more_captions"
# An object with the text in each column to keep, by its name; null if there is none, or if it is
# longer than LONGEST_CELL.
KEPT_COLUMNS = "kept_columns"
PACKED_COLUMNS = (MORE_CAPTIONS, KEPT_COLUMNS)


def pack_columns(table: pa.Table, columns: TableColumns, rules: RowRules) -> pa.Table:
    """A table of usable rows with a packed column in place of those of each kind."""
    if roles := more_caption_roles(len(columns.more_captions)):
        captions = [usable_captions(table[role], rules).to_pylist() for role in roles]
        lists = [list(row) for row in zip(*captions, strict=True)]
        table = _with_json(table.drop_columns(roles), MORE_CAPTIONS, lists)
    if roles := keep_roles(len(columns.keep)):
        texts = [_without_long_ones(table[role]).to_pylist() for role in roles]
        objects = [dict(zip(columns.keep, row, strict=True)) for row in zip(*texts, strict=True)]
        table = _with_json(table.drop_columns(roles), KEPT_COLUMNS, objects)
    return table


def _with_json(table: pa.Table, name: str, values: Sequence[object]) -> pa.Table:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    return table.append_column(name, pa.array(texts, pa.string()))


def _without_long_ones(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    fits = pc.less_equal(pc.binary_length(texts), LONGEST_CELL)
    return pc.if_else(pc.fill_null(fits, False), texts, None)
