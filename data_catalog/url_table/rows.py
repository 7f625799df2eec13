"""Row batches: the common output of all table readers, with rows as text and their numbers.

It also maps the user's column names to roles (URL, caption, split), and values of any type to text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA = pa.schema(
    [("url", pa.string()), ("caption", pa.string()), ("split", pa.string()), ("row", pa.int64())]
)
BAD_ROW, DAMAGED_FILE = "row that cannot be parsed", "file that is damaged from there on"
LONGEST_CELL = 1 << 14  # bytes of a URL or a caption that can be used
_KEEP = "keep_"  # begins the roles of columns that are kept as they are
_SHOWN_CHARS = 200  # of a row that cannot be parsed
_ELEMENT = re.compile(r"(.+)\[(\d+)\]$")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The names of the columns in a user's table. If a column holds lists, their first elements
    count; `name[1]` means the second elements of the column `name`."""

    url: str = "url"
    caption: str = "caption"
    split: str | None = None
    more_captions: tuple[str, ...] = ()  # further captions of the same image
    keep: tuple[str, ...] = ()  # columns that are carried on as they are

    @property
    def names(self) -> dict[str, str]:
        """Role -> column, for the roles that the table has."""
        more = zip(more_caption_roles(len(self.more_captions)), self.more_captions, strict=True)
        keep = zip(keep_roles(len(self.keep)), self.keep, strict=True)
        return (
            {"url": self.url, "caption": self.caption}
            | ({"split": self.split} if self.split else {})
            | dict(more)
            | dict(keep)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a role's text in a file."""

    column: str
    element: int = 0  # of the column's lists


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be parsed."""

    row: int  # from 0
    text: str  # what is wrong, and the beginning of the row
    reason: str = BAD_ROW

    @classmethod
    def of(cls, row: int, why: str, text: str) -> BadRow:
        """Create a bad row that shows only the beginning of its text."""
        return cls(row, f"{why}: {text[:_SHOWN_CHARS].strip()}")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows in table order: the rows that could be parsed, and the bad rows between them."""

    # SCHEMA, and a column for each further caption and each column to keep; url, captions and what
    # is kept may be null.
    rows: pa.RecordBatch
    bad: tuple[BadRow, ...] = ()

    @property
    def size(self) -> int:
        return int(self.rows.num_rows) + len(self.bad)


def more_caption_roles(count: int) -> list[str]:
    """The names of the columns of further captions in a RowBatch, which are also their roles."""
    return [f"more_caption_{number}" for number in range(1, count + 1)]


def keep_roles(count: int) -> list[str]:
    """The same for columns that are kept as they are."""
    return [f"{_KEEP}{number}" for number in range(1, count + 1)]


def is_kept(role: str) -> bool:
    """Whether a role is that of a column which is kept as it is."""
    return role.startswith(_KEEP)


def place_of(name: str) -> Place:
    """The place that a column's name means if no column has the whole name: `name[1]` is the second
    elements of `name`."""
    element = _ELEMENT.match(name)
    return Place(element[1], int(element[2])) if element else Place(name)


def find_columns(columns: TableColumns, names: Sequence[str]) -> tuple[dict[str, Place], list[str]]:
    """The place of each role among a file's columns, and the names of missing columns.

    White space around a column's name is ignored, unless two names differ only by it.
    """
    places, missing = dict[str, Place](), list[str]()
    trimmed = {name.strip(): name for name in reversed(names)} | {name: name for name in names}
    for role, name in columns.names.items():
        place = place_of(name)
        if name in trimmed:
            places[role] = Place(trimmed[name])
        elif place.column in trimmed:
            places[role] = Place(trimmed[place.column], place.element)
        else:
            missing.append(name)
    return places, missing


def as_batch(
    texts: Mapping[str, pa.Array],
    numbers: Sequence[int] | NDArray[np.int64],
    bad: Iterable[BadRow] = (),
) -> RowBatch:
    """Create a RowBatch from strings by role and row numbers. A role without a column is ""."""
    columns = {
        role: pa.repeat(pa.scalar("", pa.string()), len(numbers))
        for role in ("url", "caption", "split")
    }
    further = [(role, pa.string()) for role in texts if role not in columns]
    schema = pa.schema([*SCHEMA, *further])
    arrays = columns | dict(texts) | {"row": pa.array(numbers, pa.int64())}
    rows = pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)
    return RowBatch(rows, tuple(bad))


def text_array(values: list[str | None]) -> pa.Array:
    """Strings as a column. Half of a surrogate pair, which JSON can express and UTF-8 cannot,
    becomes U+FFFD."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array(
            [value and _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value) for value in values],
            pa.string(),
        )


def value_text(value: Any, element: int = 0, *, booleans: bool = False) -> str | None:
    """A JSON value as text, or None. Numbers are written as Python writes them. null, NaN and
    infinities are not text; true and false are only with `booleans`.

    For a list, the given element is used. Raises ValueError for an object or a list in a list.
    """
    if isinstance(value, list):
        value = value[element] if element < len(value) else None
    elif element:
        return None
    match value:
        case str():
            return value
        case bool():
            return str(value).lower() if booleans else None
        case None:
            return None
        case float() if not math.isfinite(value):
            return None
        case int() | float():
            return str(value)
        case _:
            raise ValueError(
                f"a {'list in a list' if isinstance(value, list) else 'JSON object'} is not text"
            )
