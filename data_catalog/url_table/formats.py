"""Reading of table files in batches: csv, tsv, Parquet and JSON lines.

It chooses the reader of a file by its format and explains what is wrong with unreadable files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from pyarrow import parquet

from data_catalog.url_table.csv_rows import csv_batches, read_header
from data_catalog.url_table.files import TableFile, UrlTableError
from data_catalog.url_table.json_rows import json_batches, json_names, loads
from data_catalog.url_table.parquet_rows import parquet_batches
from data_catalog.url_table.rows import (
    SCHEMA,
    BadRow,
    RowBatch,
    TableColumns,
    find_columns,
    more_caption_roles,
)
from data_catalog.url_table.text_lines import read_lines

__all__ = [
    "SCHEMA",
    "BadRow",
    "RowBatch",
    "TableColumns",
    "bytes_digest",
    "check_columns",
    "is_metadata",
    "more_caption_roles",
    "read_batches",
    "rows_by_footer",
]

BATCH_ROWS = 32_768  # of Parquet, at most
BLOCK_BYTES = 1 << 20
_MOST_METADATA_BYTES = 16 << 20
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
# The settings that name the columns of a file, by what it is.
_SETTINGS = {
    "URL table": (
        "download.url_column, caption_column, more_caption_columns, split_column or keep_columns"
    ),
    "metadata file": (
        "download.caption_column, more_caption_columns, split_column or keep_columns"
    ),
    "Parquet file": "download.caption_column, more_caption_columns, split_column or keep_columns",
    "table of captions": "download.key_column, caption_column or more_caption_columns",
}
_OTHER_FORMATS = {  # first bytes of files that are not tables, or not what their names say
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it or save it as csv",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as csv",
    b"PAR1": "Parquet; rename it to end in .parquet",
    b"ARROW1": "Arrow IPC (feather); write it as Parquet",
    b"Obj\x01": "Avro; write it as Parquet",
    b"ORC": "ORC; write it as Parquet",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database; export the table as csv",
    b"\x89HDF": "HDF5; write it as Parquet",
    b"version https://git-lfs": (
        "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"
    ),
    b"<!doctype html": "an HTML page, perhaps a login page; download the table again",
    b"<html": "an HTML page, perhaps a login page; download the table again",
    b"<?xml": "XML, perhaps the error message of an object store; download the table again",
}


def check_columns(file: TableFile, columns: TableColumns) -> None:
    """Raise UrlTableError if a file is not what its name says, lacks a column or has it twice, or
    at least half of its first rows cannot be parsed."""
    _refuse_other_formats(file)
    names = column_names(file, columns)
    places, missing = find_columns(columns, names)
    if missing:
        raise UrlTableError(
            f"{file.what} {file.path} has no column {', '.join(map(repr, missing))}; "
            f"its columns are {', '.join(repr(name)[:80] for name in names[:50])}"
            f"{', …' if len(names) > 50 else ''}; "
            f"set {_SETTINGS[file.what]}"
        )
    count = Counter(names)
    if twice := [place.column for place in places.values() if count[place.column] > 1]:
        raise UrlTableError(
            f"{file.what} {file.path} has {count[twice[0]]} columns {twice[0]!r}; rename all but "
            "one"
        )
    if file.format != ".parquet" and (
        first := next((batch for batch in read_batches(file, columns) if batch.size), None)
    ):
        _refuse_mostly_bad(file, first)


def _refuse_other_formats(file: TableFile) -> None:
    with file.open() as stream:
        head = stream.read(64)
    known = (
        kind
        for mark, kind in _OTHER_FORMATS.items()
        if head.lower().lstrip().startswith(mark.lower())
    )
    if (kind := next(known, None)) and not (file.format == ".parquet" and head.startswith(b"PAR1")):
        raise UrlTableError(
            f"{file.what} {file.path} cannot be parsed as {file.format[1:]}: it is {kind}"
        )


def _refuse_mostly_bad(file: TableFile, first: RowBatch) -> None:
    if first.bad and 2 * len(first.bad) >= first.size:
        raise UrlTableError(
            f"{file.what} {file.path} cannot be parsed as {file.format[1:]}: {len(first.bad)} of "
            f"its first {first.size} rows fail; row {first.bad[0].row + 1}: "
            f"{first.bad[0].text}{_json_document(file)}"
        )


def _json_document(file: TableFile) -> str:
    """A hint for a file that is one JSON value instead of JSON lines, or ""."""
    if file.format in _DELIMITERS:
        return ""
    with file.open() as stream:
        beginning = stream.read(64).decode(errors="replace").lstrip("\ufeff \t\r\n")
    name = PurePosixPath(file.path).stem
    match beginning[:1]:
        case "[":
            return (
                ". It is a JSON array, but JSON lines are needed, one object per line: "
                f"jq -c '.[]' {file.path} > {name}.jsonl"
            )
        case "{":
            return (
                ". Its JSON objects seem to span lines, but JSON lines are needed, one object per "
                f"line: jq -c . {file.path} > {name}.jsonl"
            )
        case _:
            return ""


def is_metadata(file: TableFile, columns: TableColumns) -> bool:
    """Whether a .json file does not hold rows but a single object without the table's columns, such
    as dataset_info.json."""
    if file.format != ".json":
        return False
    with file.open() as stream:
        value = loads(stream.read(_MOST_METADATA_BYTES).decode("utf-8-sig", "replace"))
    return isinstance(value, dict) and bool(find_columns(columns, [*value])[1])


def column_names(file: TableFile, columns: TableColumns) -> list[str]:
    """The names of a file's columns. Of a file without a header line, `columns` tells them."""
    with file.open() as stream:
        if file.format == ".parquet":
            return list(parquet.read_schema(stream).names)
        blocks = read_lines(stream, BLOCK_BYTES)
        if delimiter := _DELIMITERS.get(file.format):
            return read_header(blocks, columns, delimiter)[0].names
        lines = next(
            (block.lines for block in blocks if any(line.strip() for line in block.lines)), []
        )
    names = json_names(lines)
    if not names:  # explain what is wrong with the rows
        for first in read_batches(file, columns):
            _refuse_mostly_bad(file, first)
    return names


def read_batches(file: TableFile, columns: TableColumns) -> Iterator[RowBatch]:
    """All rows of a file, numbered from 0, in batches of a few megabytes. Raises UrlTableError if
    the file cannot be read."""
    with file.open() as stream:
        if file.format == ".parquet":
            yield from parquet_batches(stream, columns, BATCH_ROWS, BLOCK_BYTES)
            return
        blocks = read_lines(stream, BLOCK_BYTES)
        if delimiter := _DELIMITERS.get(file.format):
            yield from csv_batches(blocks, columns, delimiter)
        else:
            yield from json_batches(blocks, columns)


def rows_by_footer(file: TableFile) -> int | None:
    """The number of rows in a Parquet file, from its footer, or None for other formats."""
    if file.format != ".parquet":
        return None
    with file.open() as stream:
        return int(parquet.read_metadata(stream).num_rows)


def bytes_digest(files: Iterable[TableFile]) -> str:
    """SHA-256 of the bytes of these files, as they are stored."""
    digest = hashlib.sha256()
    for file in files:
        for block in file.packed_blocks():
            digest.update(block)
    return digest.hexdigest()
