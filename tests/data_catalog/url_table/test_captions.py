"""Captions of a table of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from data_catalog.url_table.captions import CaptionTable, captions_digest, load_captions
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import TableColumns

COLUMNS = TableColumns(url="key", caption="caption")


def load(path: Path, columns: TableColumns = COLUMNS, *rows: Mapping[str, object]) -> CaptionTable:
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_captions(str(path), columns)


def joined(table: CaptionTable, *keys: str | None) -> list[dict[str, str | None]]:
    texts = pa.array(keys, pa.string())
    rows = pa.RecordBatch.from_pydict({"url": texts, "caption": texts, "split": texts})
    found: list[dict[str, str | None]] = table.join(rows).drop_columns(["url", "split"]).to_pylist()
    return found


def captions(table: CaptionTable, *keys: str | None) -> list[str | None]:
    return [row["caption"] for row in joined(table, *keys)]


def test_keys_match_with_and_without_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key,caption\ncats/1.jpg,one\n cats/2 ,two\nv1.5,three\n")
    table = load(path)
    assert captions(table, "cats/1", "cats/2.PNG", "v1.5", "v1") == ["one", "two", "three", None]
    assert table.unused == 0
    table.start()
    assert table.unused == 3
    assert table.some_keys() == "'cats/1', 'cats/2', 'v1.5'"


def test_keys_that_are_null_empty_or_repeated(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"key": None, "caption": "of null"},
        {"key": "", "caption": "of nothing"},
        {"key": "a", "caption": "first"},
        {"key": "a.jpg", "caption": "second"},
        {"key": "b", "caption": None},
        {"key": 7, "caption": "of seven"},
    ]
    table = load(tmp_path / "a.jsonl", COLUMNS, *rows)
    assert captions(table, None, "", "a", "b", "7") == [None, None, "first", "", "of seven"]
    assert (table.repeated, table.unused) == (1, 0)


def test_further_captions_come_along(tmp_path: Path) -> None:
    columns = TableColumns("key", "captions", None, ("captions[1]", "short"))
    row = {"key": "a", "captions": ["x", "y"], "short": "z"}
    table = load(tmp_path / "a.jsonl", columns, row)
    assert joined(table, "b", "a") == [
        {"caption": None, "more_caption_1": None, "more_caption_2": None},
        {"caption": "x", "more_caption_1": "y", "more_caption_2": "z"},
    ]


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(UrlTableError, match="no table of captions at"):
        load(path)
    with pytest.raises(UrlTableError, match=r"table of captions .* no column 'key'.*key_column"):
        load(path, COLUMNS, {"id": 1, "caption": "x"})
    with pytest.raises(UrlTableError, match="no key in its column 'key'"):
        load(path, COLUMNS, {"key": None, "caption": "x"})


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,caption\na,b\n")
    before = captions_digest(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    assert captions_digest(str(tmp_path / "b.csv")) == before
    (tmp_path / "b.csv").write_text("key,caption\na,c\n")
    assert captions_digest(str(tmp_path / "b.csv")) != before
