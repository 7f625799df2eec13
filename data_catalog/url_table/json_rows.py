"""Reader for JSON lines: one object per line, parsed by Python's json module; blank lines are
skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_catalog.url_table.rows import (
    BadRow,
    Place,
    RowBatch,
    TableColumns,
    as_batch,
    find_columns,
    is_kept,
    text_array,
    value_text,
)
from data_catalog.url_table.text_lines import LONGEST_LINE, Lines

_LINES_FOR_NAMES = 100


def json_names(lines: list[str]) -> list[str]:
    """The names of the columns in the first lines."""
    rows = (loads(line) for line in [line for line in lines if line.strip()][:_LINES_FOR_NAMES])
    return list({name: None for row in rows if isinstance(row, dict) for name in row})


def json_batches(blocks: Iterator[Lines], columns: TableColumns) -> Iterator[RowBatch]:
    """All rows, in batches."""
    places, start, first_line = dict[str, Place](), 0, 1
    for lines, cut in blocks:
        if cut:
            why = f"line {first_line} is longer than {LONGEST_LINE >> 20} MB"
            batch = as_batch(
                {role: text_array([]) for role in columns.names},
                [],
                [BadRow.of(start, why, lines[0])],
            )
        else:
            named, _missing = find_columns(columns, json_names(lines) if not places else [])
            places = places or {role: Place(name) for role, name in columns.names.items()} | named
            batch = _batch(lines, places, start, first_line)
        yield batch
        start += batch.size
        first_line += len(lines)


def _batch(lines: list[str], places: dict[str, Place], row: int, first_line: int) -> RowBatch:
    texts: dict[str, list[str | None]] = {role: [] for role in places}
    numbers, bad = list[int](), list[BadRow]()
    roles = list(places.items())
    for line_number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            cells = [
                (role, value_text(values.get(place.column), place.element, booleans=is_kept(role)))
                for role, place in roles
            ]
        except (ValueError, RecursionError, AttributeError) as error:
            # AttributeError: the value is not an object
            why = "not an object" if isinstance(error, AttributeError) else str(error) or "too deep"
            bad.append(BadRow.of(row, f"line {line_number}: {why}", line))
        else:
            numbers.append(row)
            for role, text in cells:
                texts[role].append(text)
        row += 1
    return as_batch({role: text_array(column) for role, column in texts.items()}, numbers, bad)


def loads(text: str) -> Any:
    """The value of JSON text, or None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
