"""Form 1 of the data: the table of URLs and captions: read, checked, counted, digested.

Knows formats and columns; fetches nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import csv, json, parquet

from data_catalog import shapes

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
SPLITS = ("train", "held_out")


class UrlTableError(ValueError):
    """A URL table that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a user's table hold what."""

    url: str = "url"
    caption: str = "caption"
    split: str | None = None


@dataclass(frozen=True, slots=True)
class UrlTable:
    """Checked pairs, and an account of the rows that are not among them."""

    pairs: pa.Table  # url, caption, split: string; split is "train", "held_out" or "" (by key)
    rows: int
    rejected: dict[str, int]  # cause -> rows


def read_url_table(source: str, columns: TableColumns, limit: int | None = None) -> UrlTable:
    """Read a table by the path of its file, or the built-in one by the name "shapes".

    Rows without a usable URL or caption, and second rows with the same URL, are counted by cause and
    left out; the others keep their order. Raises UrlTableError.
    """
    built_in = source == shapes.NAME
    table = pa.table(shapes.url_table()) if built_in else _read_file(Path(source).expanduser(), columns)
    table = table.slice(0, limit)
    kept: list[int] = []
    rejected: Counter[str] = Counter()
    seen: set[str] = set()
    for index, row in enumerate(table.to_pylist()):
        if problem := _problem(row["url"], row["caption"], row["split"], seen):
            rejected[problem] += 1
        else:
            seen.add(row["url"])
            kept.append(index)
    if not kept:
        causes = ", ".join(f"{cause}: {count}" for cause, count in rejected.items())
        raise UrlTableError(f"no row of {source} can be used ({causes})")
    return UrlTable(pairs=table.take(kept), rows=table.num_rows, rejected=dict(rejected))


def url_table_digest(source: str) -> str:
    """SHA-256 of a table's content: of the file's bytes, or of the built-in table's rows."""
    if source == shapes.NAME:
        rows = zip(*shapes.url_table().values(), strict=True)
        return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()
    path = _existing(Path(source).expanduser())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_rows(source: str, columns: TableColumns) -> int:
    """Rows of a table, usable or not. Raises UrlTableError."""
    if source == shapes.NAME:
        return shapes.TRAIN_PICTURES + shapes.HELD_OUT_PICTURES
    path = _existing(Path(source).expanduser())
    if path.suffix.lower() == ".parquet":
        return int(parquet.read_metadata(path).num_rows)
    return int(_read_file(path, columns).num_rows)


def check_url_table(source: str, columns: TableColumns) -> None:
    """Raise UrlTableError where the table can't be read or lacks a column; looks at no single row."""
    if source != shapes.NAME:
        _read_file(Path(source).expanduser(), columns)


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise UrlTableError(f"URL table {path} is a folder; give one of its files ({', '.join(FORMATS)})")
    if not path.exists():
        raise UrlTableError(f"no URL table at {path}; give a path to a table, or 'shapes' for the built-in data set")
    if path.suffix.lower() not in FORMATS:
        raise UrlTableError(f"URL table {path} has an unknown format {path.suffix!r}; known: {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise UrlTableError(f"URL table {path} is empty")
    return path


def _read_file(path: Path, columns: TableColumns) -> pa.Table:
    """string columns url, caption, split, as they stand in the file"""
    _existing(path)
    wanted = {"url": columns.url, "caption": columns.caption, "split": columns.split}
    as_text = {name: pa.string() for name in wanted.values() if name}
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                table = csv.read_csv(
                    path,
                    parse_options=csv.ParseOptions(
                        delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True
                    ),
                    convert_options=csv.ConvertOptions(column_types=as_text, strings_can_be_null=True),
                )
            case ".parquet":
                table = parquet.read_table(path)
            case _:
                table = json.read_json(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UrlTableError(f"URL table {path} cannot be parsed as {path.suffix[1:]}: {error}") from error

    missing = [name for name in wanted.values() if name and name not in table.column_names]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise UrlTableError(
            f"URL table {path} has no column {names}; its columns are {', '.join(map(repr, table.column_names))}; "
            "set download.url_column, download.caption_column or download.split_column"
        )
    if table.num_rows == 0:
        raise UrlTableError(f"URL table {path} has columns but no rows")
    return pa.table(
        {
            role: table[name].cast(pa.string()) if name else pa.array([""] * table.num_rows, pa.string())
            for role, name in wanted.items()
        }
    )


def _problem(url: str | None, caption: str | None, split: str | None, seen: set[str]) -> str | None:
    """Why a row can't be used, or None."""
    if not url or not url.strip():
        return "no URL"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "URL that cannot be parsed"
    if parts.scheme not in ("http", "https") or not parts.netloc or any(c.isspace() for c in url):
        return "URL that is not http or https"
    if not caption or not caption.strip():
        return "empty caption"
    if split not in ("", *SPLITS):
        return f"split that is not {' or '.join(SPLITS)}"
    if url in seen:
        return "URL that stands in the table twice"
    return None
