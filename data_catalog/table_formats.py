"""The rows of a table's files in pieces, never whole: csv, tsv, parquet and json lines.

Knows columns and rows that can't be parsed; knows nothing of what makes a good URL or caption.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet
from pyarrow import json as arrow_json

from data_catalog.table_files import BLOCK_BYTES, TableFile, UrlTableError

BATCH_ROWS = 131_072
_LONGEST_LINE = 64 << 20  # bytes
_SHOWN_CHARS = 200  # of a row that cannot be parsed
_QUOTED = '^"([^"]|"")*"$'
SCHEMA = pa.schema([("url", pa.string()), ("caption", pa.string()), ("split", pa.string()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a user's table hold what."""

    url: str = "url"
    caption: str = "caption"
    split: str | None = None
    more_captions: tuple[str, ...] = ()  # further captions of the same picture

    @property
    def names(self) -> dict[str, str]:
        """role -> column, of those that are there"""
        more = zip(more_caption_roles(len(self.more_captions)), self.more_captions, strict=True)
        return {"url": self.url, "caption": self.caption} | ({"split": self.split} if self.split else {}) | dict(more)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be parsed."""

    row: int  # from 0
    text: str  # its beginning


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows in table order: those that could be parsed, and those in between that could not."""

    rows: pa.RecordBatch  # SCHEMA, and a column for each further caption; url and captions may be null
    bad: tuple[BadRow, ...] = ()

    @property
    def size(self) -> int:
        return int(self.rows.num_rows) + len(self.bad)


def more_caption_roles(count: int) -> list[str]:
    """Names of the columns of further captions: in a RowBatch, and as roles."""
    return [f"more_caption_{number}" for number in range(1, count + 1)]


def check_columns(file: TableFile, columns: TableColumns) -> None:
    """Raise UrlTableError where a file lacks a column, or most of its first rows cannot be parsed."""
    found = _column_names(file)
    if missing := [name for name in columns.names.values() if name not in found]:
        raise UrlTableError(
            f"URL table {file.path} has no column {', '.join(map(repr, missing))}; "
            f"its columns are {', '.join(map(repr, found))}; "
            "set download.url_column, caption_column, more_caption_columns or split_column"
        )
    if file.format != ".parquet" and (first := next(read_batches(file, columns), None)):
        _refuse_mostly_bad(file, first)


def _refuse_mostly_bad(file: TableFile, first: RowBatch) -> None:
    if first.bad and 2 * len(first.bad) >= first.size:
        example = first.bad[0]
        raise UrlTableError(
            f"URL table {file.path} cannot be parsed as {file.format[1:]}: {len(first.bad)} of its first "
            f"{first.size} rows cannot; row {example.row + 1} is {example.text!r}"
        )


def _column_names(file: TableFile) -> list[str]:
    with file.open() as stream:
        match file.format:
            case ".parquet":
                return list(parquet.read_schema(stream).names)
            case ".csv" | ".tsv":
                options = csv.ParseOptions(**_dialect(file), invalid_row_handler=lambda _: "skip")
                return list(csv.open_csv(_Utf8(stream), parse_options=options).schema.names)
            case _:
                return _json_names(file, stream)


def _json_names(file: TableFile, stream: IO[bytes]) -> list[str]:
    lines = next(_line_blocks(stream), [])
    rows = [row for line in lines[:100] if isinstance(row := _loads(line), dict)]
    if lines and not rows:
        _refuse_mostly_bad(file, RowBatch(_as_batch({}, np.arange(0)), (BadRow(0, lines[0][:_SHOWN_CHARS]),)))
    return list({name: None for row in rows for name in row})


def read_batches(file: TableFile, columns: TableColumns) -> Iterator[RowBatch]:
    """All rows of a file, numbered from 0, in pieces of some megabytes. Raises UrlTableError."""
    with file.open() as stream:
        match file.format:
            case ".parquet":
                yield from _parquet_batches(stream, columns.names)
            case ".csv" | ".tsv":
                yield from _csv_batches(stream, columns.names, _dialect(file))
            case _:
                yield from _json_batches(stream, columns.names)


def rows_by_footer(file: TableFile) -> int | None:
    """Rows of a Parquet file, without reading them; None for other formats."""
    if file.format != ".parquet":
        return None
    with file.open() as stream:
        return int(parquet.read_metadata(stream).num_rows)


def _parquet_batches(stream: IO[bytes], names: dict[str, str]) -> Iterator[RowBatch]:
    # Buffered: else a whole column of a row group, which may be the whole table, is read at once.
    table = parquet.ParquetFile(stream, buffer_size=BLOCK_BYTES, pre_buffer=False)
    start = 0
    for batch in table.iter_batches(BATCH_ROWS, columns=sorted(set(names.values())), use_threads=False):
        numbers = np.arange(start, start + batch.num_rows)
        yield RowBatch(_as_batch({role: batch[name] for role, name in names.items()}, numbers))
        start += batch.num_rows


def _csv_batches(stream: IO[bytes], names: dict[str, str], dialect: dict[str, Any]) -> Iterator[RowBatch]:
    bad: list[BadRow] = []

    def skip(row: Any) -> str:
        bad.append(BadRow(row.number - 2, row.text[:_SHOWN_CHARS]))  # it counts from 1, and the header
        return "skip"

    wanted, quotes = sorted(set(names.values())), dialect.get("quote_char", True)
    reader = csv.open_csv(
        _Utf8(stream),
        csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),  # with threads rows have no numbers
        csv.ParseOptions(**dialect, invalid_row_handler=skip),
        csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted},
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    start, pending = 0, list[BadRow]()
    for batch in reader:
        pending, bad[:] = pending + bad, []  # the reader is ahead of its batches: some belong to later ones
        before = np.array([row.row - start - place for place, row in enumerate(pending)], np.int64)
        count = int(np.searchsorted(before, batch.num_rows, side="right"))  # of bad rows up to the end of this batch
        parsed = np.arange(batch.num_rows)
        numbers = start + parsed + np.searchsorted(before, parsed, side="right")
        texts = {role: batch[name] if quotes else _unquoted(batch[name]) for role, name in names.items()}
        yield RowBatch(_as_batch(texts, numbers), tuple(pending[:count]))
        pending = pending[count:]
        start += batch.num_rows + count
    if rest := pending + bad:
        yield RowBatch(_as_batch({}, np.arange(0)), tuple(rest))


def _json_batches(stream: IO[bytes], names: dict[str, str]) -> Iterator[RowBatch]:
    schema = pa.schema([(name, pa.string()) for name in sorted(set(names.values()))])
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    start = 0
    for lines in _line_blocks(stream):
        numbers, bad = np.arange(start, start + len(lines)), list[BadRow]()
        try:
            block = arrow_json.read_json(
                io.BytesIO("\n".join(lines).encode()),
                arrow_json.ReadOptions(use_threads=False, block_size=2 * _LONGEST_LINE),
                options,
            )
        except pa.ArrowException:
            block = None
        if block is None or block.num_rows != len(lines):
            block, numbers, bad = _json_rows(lines, schema.names, start)
        rows = _as_batch({role: pa.concat_arrays(block[name].chunks) for role, name in names.items()}, numbers)
        yield RowBatch(rows, tuple(bad))
        start += len(lines)


def _json_rows(lines: list[str], names: list[str], start: int) -> tuple[pa.Table, NDArray[np.int64], list[BadRow]]:
    """Line by line: what a block with a damaged line, or with numbers for text, still holds."""
    values: dict[str, list[str | None]] = {name: [] for name in names}
    numbers: list[int] = []
    bad: list[BadRow] = []
    for number, line in enumerate(lines, start):
        row = _loads(line)
        if not isinstance(row, dict) or any(isinstance(row.get(name), dict | list) for name in names):
            bad.append(BadRow(number, line[:_SHOWN_CHARS]))
            continue
        numbers.append(number)
        for name in names:
            value = row.get(name)
            values[name].append(value if value is None else str(value))
    table = pa.table({name: pa.chunked_array([pa.array(column, pa.string())]) for name, column in values.items()})
    return table, np.array(numbers, np.int64), bad


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _line_blocks(stream: IO[bytes]) -> Iterator[list[str]]:
    """Lines that are not blank, some megabytes at a time."""
    rest, text = "", _Utf8(stream)
    while block := text.read(BLOCK_BYTES):
        head, _, rest = (rest + block.decode()).rpartition("\n")
        if len(rest) > _LONGEST_LINE:
            raise OSError(f"a line is longer than {_LONGEST_LINE >> 20} MB; is this json lines, one object a line?")
        if lines := [line for line in head.split("\n") if line.strip()]:
            yield lines
    if rest.strip():
        yield [rest]


def _dialect(file: TableFile) -> dict[str, Any]:
    """csv quotes; tsv does not, so that a caption which begins with a quotation mark can't swallow the next rows."""
    if file.format == ".csv":
        return {"delimiter": ",", "newlines_in_values": True}
    return {"delimiter": "\t", "quote_char": False}


def _unquoted(column: pa.Array) -> pa.Array:
    """Values that a writer quoted as in csv, without their quotation marks."""
    quoted = pc.match_substring_regex(column, _QUOTED)
    if not pc.any(quoted).as_py():
        return column
    bare = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
    return pc.if_else(pc.fill_null(quoted, False), bare, column)


def _as_batch(columns: dict[str, pa.Array], numbers: NDArray[np.int64]) -> pa.RecordBatch:
    """SCHEMA, from columns by role and numbers of rows, and further captions; a role without column is ""."""
    texts = {role: pa.repeat(pa.scalar("", pa.string()), len(numbers)) for role in ("url", "caption", "split")}
    texts |= {role: _as_text(column) for role, column in columns.items()}
    url, caption, split, *more = texts.values()
    schema = pa.schema([*SCHEMA, *((role, pa.string()) for role in more_caption_roles(len(more)))])
    return pa.RecordBatch.from_arrays([url, caption, split, pa.array(numbers, pa.int64()), *more], schema=schema)


def _as_text(array: pa.Array) -> pa.Array:
    """Any column as valid strings: Parquet does not promise that its strings are UTF-8."""
    if pa.types.is_nested(array.type):
        raise pa.ArrowInvalid(f"a column of {array.type} holds no text")
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    try:
        return array.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary()).to_pylist()
        return pa.array([value if value is None else value.decode(errors="replace") for value in raw], pa.string())
    except pa.ArrowNotImplementedError:  # numbers and times can't be cast to bytes
        return array.cast(pa.string())


class _Utf8(io.RawIOBase):
    """Bytes that are valid UTF-8: what is not becomes U+FFFD, so that one bad byte costs one row."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        text = ""
        while not text:
            # A bad byte becomes three, and up to three bytes of a character may be waiting.
            raw = self._stream.read(max(1, len(buffer) // 3 - 4))
            text = self._decoder.decode(raw, final=not raw)
            if not raw:
                break
        valid = text.encode()
        buffer[: len(valid)] = valid
        return len(valid)
