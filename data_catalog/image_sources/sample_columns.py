"""The texts beside an image, by column: NAME.txt, the fields of NAME.json, and the name itself.

Tars in webdataset layout and folders hold samples: files that share a name up to its suffix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from data_catalog.image_formats import is_image
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import (
    BadRow,
    RowBatch,
    TableColumns,
    as_batch,
    is_kept,
    place_of,
    text_array,
    value_text,
)

CAPTION, KEY, FILE_NAME, FOLDER_NAME = "caption", "key", "file_name", "folder_name"
FIRST_SAMPLES = 32  # that show which columns there are
MOST_TEXT_BYTES = 1 << 20  # of a .txt or .json
_FIRST_ROWS, _BATCH_ROWS = 64, 4096  # the first batches are small, for a cheap look at them
_SEPARATORS = re.compile(r"[\s_\-.,+]+")


@dataclass(slots=True)
class Sample:
    """The texts of one image. `read` gives the content of the file with another suffix, or None."""

    name: str
    """The path of the image within its source, with its suffix."""
    read: Callable[[str], bytes | None]
    _fields: dict[str, Any] | None = field(default=None, init=False)

    def text(self, column: str, *, booleans: bool = False) -> str | None:
        """The text in a column, or None if the sample has none.

        A column is the suffix of a text file beside the image, a field of its .json, or one of four
        names: `caption` is its .txt, `key` its name without suffix, `file_name` the words of that
        name, `folder_name` the words of its folder's name. With `booleans`, true and false count as
        texts. Raises ValueError if the field is not a
        text, or the .json is damaged.
        """
        if column == FILE_NAME:
            return _words(PurePosixPath(self.name).stem)
        if column == FOLDER_NAME:
            return _words(PurePosixPath(self.name).parent.name)
        suffixes = ("txt", CAPTION) if column == CAPTION else (column,)
        contents = (self.read(suffix) for suffix in suffixes)
        if (content := next((c for c in contents if c is not None), None)) is not None:
            return content.decode("utf-8-sig", "replace").strip()
        fields, place = self.fields(), place_of(column)
        if column in fields:
            return value_text(fields[column], booleans=booleans)
        if place.column in fields:
            return value_text(fields[place.column], place.element, booleans=booleans)
        return self.key if column == KEY else None

    @property
    def key(self) -> str:
        """The name without its suffix."""
        return key_of(self.name)

    def fields(self) -> dict[str, Any]:
        """The fields of the .json beside the image. Raises ValueError if it is damaged."""
        if self._fields is None:
            content = self.read("json")
            value = {} if content is None else _object(content)
            if not isinstance(value, dict):
                raise ValueError("its .json is not an object")
            self._fields = value
        return self._fields


def columns_of(samples: Iterable[Sample]) -> list[str]:
    """The columns that have texts in these samples."""
    names = dict[str, None]()
    for sample in samples:
        if any(sample.read(suffix) is not None for suffix in ("txt", CAPTION)):
            names[CAPTION] = None
        with suppress(ValueError):  # a damaged .json
            fields = sample.fields().items()
            names |= dict.fromkeys(name for name, value in fields if isinstance(value, str | list))
    return [*names, FILE_NAME, FOLDER_NAME]


def key_of(name: str) -> str:
    """The path of an image without the suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and is_image(suffix) else name


def sample_batches(
    samples: Iterator[SampleRow | BadRow], columns: TableColumns
) -> Iterator[RowBatch]:
    """Samples as batches of rows, and bad rows between them, numbered from 0."""
    collected, enough = _Batch(columns, 0), _FIRST_ROWS
    for row in samples:
        collected.add(row)
        if collected.size >= enough:
            yield collected.batch()
            collected = _Batch(columns, collected.first + collected.size)
            enough = min(4 * enough, _BATCH_ROWS)
    if collected.size:
        yield collected.batch()


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of an image source: the address of the image and the sample that has its texts."""

    url: str | None
    """None if the sample has no image."""
    sample: Sample


@dataclass(slots=True)
class _Batch:
    """Rows that are being collected."""

    columns: TableColumns
    first: int
    numbers: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    texts: dict[str, list[str | None]] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = {role: [] for role in self.columns.names}

    @property
    def size(self) -> int:
        return len(self.numbers) + len(self.bad)

    def add(self, row: SampleRow | BadRow) -> None:
        number = self.first + self.size
        if isinstance(row, BadRow):
            self.bad.append(replace(row, row=number))
            return
        try:
            cells = {
                role: row.url if role == "url" else row.sample.text(column, booleans=is_kept(role))
                for role, column in self.columns.names.items()
            }
        except UrlTableError:
            raise
        except ValueError as error:
            self.bad.append(BadRow(number, f"{row.sample.name}: {error}"))
            return
        self.numbers.append(number)
        for role, text in cells.items():
            self.texts[role].append(text)

    def batch(self) -> RowBatch:
        return as_batch(
            {role: text_array(texts) for role, texts in self.texts.items()}, self.numbers, self.bad
        )


def _object(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json is damaged: {error or 'too deep'}") from None


def _words(name: str) -> str:
    """`red_apple-2` -> `red apple 2`."""
    return _SEPARATORS.sub(" ", name).strip()
