"""Tables with several captions a picture: which are of use, and how they travel."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.url_table.row_checks import RowRules
from data_catalog.url_table.table import TableColumns, UrlTableError, open_url_table

COLUMNS = TableColumns(more_captions=("alt", "long"))
ROWS = [
    {"url": "http://x/0", "caption": "main 0", "alt": "alt 0", "long": "é" * 30},
    {"url": "http://x/1", "caption": "main 1", "alt": "  ", "long": None},
    {"url": "http://x/2", "caption": "", "alt": "alt 2", "long": "long 2"},
    {"url": "http://x/3", "caption": "main 3", "alt": "x" * 31, "long": 'a "quoted", long one'},
]
EXPECTED = [["alt 0", "é" * 30], [None, None], [None, 'a "quoted", long one']]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_further_captions_follow_the_rules_of_the_main_one_and_cost_no_row(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"urls.{kind}"
    table = pa.Table.from_pylist(ROWS)
    match kind:
        case "parquet":
            parquet.write_table(table, path)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
        case _:
            table.to_pandas().to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    rules = RowRules(min_caption_chars=2, max_caption_chars=30)
    (shard,) = open_url_table(str(path), COLUMNS, rules=rules).shards(10)
    assert shard.pairs.column_names == ["url", "caption", "split", "row", "more_captions"]
    assert shard.pairs["row"].to_pylist() == [0, 1, 3], "only a main caption costs a row"
    assert [json.loads(text) for text in shard.pairs["more_captions"].to_pylist()] == EXPECTED
    (alone,) = open_url_table(str(path), TableColumns(), rules=rules).shards(10)
    assert alone.pairs.equals(shard.pairs.drop_columns("more_captions"))


def test_bytes_that_are_no_text_are_no_caption(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_bytes(b"url,caption,alt,long\nhttp://x/0,main,b\xffd,fine\n")
    (shard,) = open_url_table(str(tmp_path / "urls.csv"), COLUMNS).shards(10)
    assert json.loads(shard.pairs["more_captions"][0].as_py()) == [None, "fine"]


def test_a_caption_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("url,caption,alt\nhttp://x/0,main,other\n")
    with pytest.raises(UrlTableError, match=r"no column 'long'.*more_caption_columns"):
        open_url_table(str(tmp_path / "urls.csv"), COLUMNS)
