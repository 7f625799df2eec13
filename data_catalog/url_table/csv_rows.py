r"""Reader for csv and tsv files that recovers from stray quotation marks.

Rows are parsed by Python's csv module. A quoted value may span lines. A quotation mark is stray if
its value never ends, ends in the middle of a cell, spans more than 10,000 lines, or covers lines
most of which are rows themselves (the right number of cells, with a URL in its place). Then:

- if columns are not separated by tabs, the line at which the quoted value opens counts as one row
  that cannot be parsed, and reading continues at the next line;
- if columns are separated by tabs, the mark in this line is read as an ordinary character, because
  many tsv files do not use quoting.

A stray mark that stays within its line has no effect: Python's reading of the line is used. So
every line belongs to exactly one row, and a row with too few or too many cells counts as one that
cannot be parsed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data_catalog.url_table.files import NotATable
from data_catalog.url_table.rows import (
    BadRow,
    RowBatch,
    TableColumns,
    as_batch,
    find_columns,
    text_array,
)
from data_catalog.url_table.text_lines import LONGEST_LINE, Lines

_MOST_LINES = 10_000  # of one row
_DELIMITERS = (",", "\t", ";", "|")
_QUOTED = re.compile('"((?:[^"]|"")*)"')
_END = "end\n"
csv.field_size_limit(LONGEST_LINE + 1)  # of the process; Python's own is 131,072 characters


@dataclass(frozen=True, slots=True)
class Header:
    """The names of the columns, and their delimiter."""

    names: list[str]
    delimiter: str


def read_header(
    blocks: Iterator[Lines], columns: TableColumns, default_delimiter: str
) -> tuple[Header, list[str], int]:
    """Read the header. Returns it, the lines after it that were already read, and the number of
    lines before these.

    Another delimiter than the default is used if the required columns are found only with it.
    Raises NotATable if there is no valid header.
    """
    lines, skipped = list[str](), 0
    for block in blocks:
        if block.cut:
            raise NotATable(f"its first line is longer than {LONGEST_LINE >> 20} MB")
        lines += block.lines
        while lines and not lines[0].strip("\r\n"):
            del lines[0]
            skipped += 1
        if lines:
            delimiter = _delimiter(lines[0], columns, default_delimiter)
            reader = csv.reader([*lines[:_MOST_LINES], _END], delimiter=delimiter)
            names, used = next(reader), reader.line_num
            if used <= min(len(lines), _MOST_LINES):
                return Header(names, delimiter), lines[used:], skipped + used
            if len(lines) >= _MOST_LINES:
                break
    if not lines:
        raise NotATable("it has no lines")
    raise NotATable(f"a quotation mark in its first line is never closed: {lines[0][:200].strip()}")


def _delimiter(line: str, columns: TableColumns, default_delimiter: str) -> str:
    for delimiter in (default_delimiter, *_DELIMITERS):
        if not find_columns(columns, next(csv.reader([line], delimiter=delimiter)))[1]:
            return delimiter
    return default_delimiter


def csv_batches(
    blocks: Iterator[Lines], columns: TableColumns, default_delimiter: str
) -> Iterator[RowBatch]:
    """All rows after the header, in batches. Raises NotATable if the header lacks a column."""
    header, first, before = read_header(blocks, columns, default_delimiter)
    places, missing = find_columns(columns, header.names)
    if missing:
        raise NotATable(f"it has no column {missing[0]!r}")
    cells = {role: header.names.index(place.column) for role, place in places.items()}
    rows = _Rows(header.delimiter, len(header.names), cells["url"], before)
    for lines, cut in _and_then(first, blocks):
        parsed = rows.parse([] if cut else lines, last=cut)
        if cut:
            rows.skip_line(lines[0], parsed)
        yield _batch(parsed, cells)
    yield _batch(rows.parse([], last=True), cells)


def _and_then(first: list[str], blocks: Iterator[Lines]) -> Iterator[Lines]:
    yield Lines(first)
    yield from blocks


@dataclass(slots=True)
class _Parsed:
    """Rows with the right number of cells, their numbers, and the bad rows."""

    rows: list[list[str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


def _batch(parsed: _Parsed, cells: dict[str, int]) -> RowBatch:
    texts = {role: text_array([row[cell] for row in parsed.rows]) for role, cell in cells.items()}
    return as_batch(texts, parsed.numbers, parsed.bad)


@dataclass(slots=True)
class _Rows:
    """Assembles lines into rows, block by block."""

    delimiter: str
    width: int  # cells of a row
    url_cell: int
    line: int  # lines before the waiting ones
    row: int = 0  # rows before them
    waiting: list[str] = field(default_factory=list)  # of a row that may end in the next block

    def parse(self, more: list[str], *, last: bool) -> _Parsed:
        """The rows that end in these lines. `last` means that no line follows."""
        lines, parsed, place = [*self.waiting, *more], _Parsed(), 0
        while place < len(lines):
            place, is_open = self._plain_rows(lines, place, parsed)
            if place == len(lines) or (
                is_open and not last and not self._is_too_long(lines[place:])
            ):
                break
            self._line_with_stray_mark(lines[place], place, parsed)
            place += 1
        self.line += place
        self.waiting = lines[place:]
        return parsed

    def skip_line(self, beginning: str, parsed: _Parsed) -> None:
        """Count a line that is too long to be read as one bad row."""
        self._bad(f"line {self.line + 1} is longer than {LONGEST_LINE >> 20} MB", beginning, parsed)
        self.line += 1

    def _plain_rows(self, lines: list[str], place: int, parsed: _Parsed) -> tuple[int, bool]:
        """Take rows from `place` on, up to a row with a stray quotation mark. Returns the place of
        that row, or the end, and whether that row may end in a later block."""
        begin, width = place, self.width
        reader = csv.reader(
            map(lines.__getitem__, range(begin, len(lines))), delimiter=self.delimiter, strict=True
        )
        rows, numbers, number, is_open = parsed.rows, parsed.numbers, self.row, False
        try:
            for cells in reader:
                end = begin + reader.line_num
                if end - place > 1 and self._is_stray(lines[place:end], cells):
                    break
                if len(cells) == width:
                    rows.append(cells)
                    numbers.append(number)
                    number += 1
                elif cells:
                    self.row = number
                    self._other_width(lines[place:end], cells, place, parsed)
                    number = self.row
                place = end
        except csv.Error:  # a mark is closed in the middle of a cell, or not before the lines end
            is_open = begin + reader.line_num == len(lines)
        self.row = number
        return place, is_open

    def _is_stray(self, lines: list[str], cells: list[str]) -> bool:
        """Whether the quotation mark that joins these lines into one row is stray."""
        if self._is_too_long(lines):
            return True
        if (
            self.delimiter == "\t"
            and len(cells) != self.width
            and len(self._literal(lines[0])) == self.width
        ):
            return True
        return 2 * sum(map(self._is_row, lines)) > len(lines)

    def _is_too_long(self, lines: list[str]) -> bool:
        return len(lines) > _MOST_LINES or sum(map(len, lines)) > LONGEST_LINE

    def _is_row(self, line: str) -> bool:
        if "://" not in line:
            return False
        cells = (
            self._literal(line)
            if self.delimiter == "\t"
            else next(csv.reader([line], delimiter=self.delimiter))
        )
        url = cells[self.url_cell].strip().lower() if len(cells) == self.width else ""
        return url.startswith(("http://", "https://"))

    def _other_width(self, lines: list[str], cells: list[str], place: int, parsed: _Parsed) -> None:
        if (
            self.delimiter == "\t"
            and len(lines) == 1
            and len(literal := self._literal(lines[0])) == self.width
        ):
            self._good(literal, parsed)
        else:
            why = f"line {self.line + place + 1} has {len(cells)} cells instead of {self.width}"
            self._bad(why, lines[0], parsed)

    def _line_with_stray_mark(self, line: str, place: int, parsed: _Parsed) -> None:
        if self.delimiter == "\t":
            cells = self._literal(line)
        else:
            cells, *complete = csv.reader([line, _END], delimiter=self.delimiter)
            if not complete:
                why = f"quotation mark that is never closed, line {self.line + place + 1}"
                self._bad(why, line, parsed)
                return
        if len(cells) == self.width:
            self._good(cells, parsed)
        else:
            self._other_width([line], cells, place, parsed)

    def _literal(self, line: str) -> list[str]:
        """The cells of a line, where only quotation marks around whole cells count as such."""
        cells = line.rstrip("\r\n").split(self.delimiter)
        return [
            quoted[1].replace('""', '"') if (quoted := _QUOTED.fullmatch(cell)) else cell
            for cell in cells
        ]

    def _good(self, cells: Sequence[str], parsed: _Parsed) -> None:
        parsed.rows.append(list(cells))
        parsed.numbers.append(self.row)
        self.row += 1

    def _bad(self, why: str, text: str, parsed: _Parsed) -> None:
        parsed.bad.append(BadRow.of(self.row, why, text))
        self.row += 1
