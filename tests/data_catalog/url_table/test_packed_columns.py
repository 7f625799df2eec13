"""Columns that are kept as they are: which texts travel, through every kind of table."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.url_table.rows import LONGEST_CELL
from data_catalog.url_table.table import TableColumns, UrlTableError, open_url_table

COLUMNS = TableColumns(keep=("style", "the concept"))
ROWS = [
    {"url": "http://x/0", "caption": "a", "style": "oil", "the concept": 'a "big" cät'},
    {"url": "http://x/1", "caption": "b", "style": "ink", "the concept": "x" * (LONGEST_CELL + 1)},
    {"url": "http://x/2", "caption": "", "style": "not usable", "the concept": "dog"},
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_columns_are_kept_as_text_and_cost_no_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"urls.{kind}"
    table = pa.Table.from_pylist(ROWS)
    match kind:
        case "parquet":
            parquet.write_table(table, path)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
        case _:
            table.to_pandas().to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    (shard,) = open_url_table(str(path), COLUMNS).shards(10)
    assert shard.pairs.column_names == ["url", "caption", "split", "row", "kept_columns"]
    assert [json.loads(text) for text in shard.pairs["kept_columns"].to_pylist()] == [
        {"style": "oil", "the concept": 'a "big" cät'},
        {"style": "ink", "the concept": None},
    ]
    (alone,) = open_url_table(str(path), TableColumns()).shards(10)
    assert alone.pairs.equals(shard.pairs.drop_columns("kept_columns"))


def test_numbers_are_text_and_what_is_no_text_is_null(tmp_path: Path) -> None:
    rows = [
        {"url": f"http://x/{n}", "caption": "a", "style": value}
        for n, value in enumerate((7, 1.5, None, True, ["first", "second"]))
    ]
    (tmp_path / "urls.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = open_url_table(str(tmp_path / "urls.jsonl"), TableColumns(keep=("style", "style[1]")))
    (shard,) = table.shards(10)
    texts = [json.loads(text) for text in shard.pairs["kept_columns"].to_pylist()]
    assert [row["style"] for row in texts] == ["7", "1.5", None, "true", "first"]
    assert [row["style[1]"] for row in texts] == [None, None, None, None, "second"]


def test_booleans_of_parquet_are_text_where_they_are_kept_and_no_captions(tmp_path: Path) -> None:
    urls = [f"http://x/{n}" for n in range(3)]
    columns = {"url": urls, "caption": ["a", "b", "c"], "style": [True, False, None]}
    parquet.write_table(pa.table(columns), tmp_path / "urls.parquet")
    kept = TableColumns(more_captions=("style",), keep=("style",))
    (shard,) = open_url_table(str(tmp_path / "urls.parquet"), kept).shards(10)
    texts = [json.loads(text)["style"] for text in shard.pairs["kept_columns"].to_pylist()]
    assert texts == ["true", "false", None]
    assert shard.pairs["more_captions"].to_pylist() == ["[null]"] * 3


def test_a_column_may_be_a_further_caption_too(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "urls.parquet")
    columns = TableColumns(more_captions=("style",), keep=("style",))
    (shard,) = open_url_table(str(tmp_path / "urls.parquet"), columns).shards(10)
    assert shard.pairs["more_captions"].to_pylist() == ['["oil"]', '["ink"]']
    assert shard.pairs["kept_columns"].to_pylist() == ['{"style": "oil"}', '{"style": "ink"}']


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("url,caption,style\nhttp://x/0,main,oil\n")
    with pytest.raises(UrlTableError, match=r"no column 'the concept'.*keep_columns"):
        open_url_table(str(tmp_path / "urls.csv"), COLUMNS)
