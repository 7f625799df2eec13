import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.urls import TableColumns, UrlTableError, read_url_table, url_table_digest

ROWS = [("http://a.test/1.jpg", "one"), ("http://a.test/2.jpg", "zwei – 二")]


def write(path: Path) -> Path:
    """ROWS in the format of the path's suffix."""
    table = pa.table({"url": [r[0] for r in ROWS], "caption": [r[1] for r in ROWS]})
    match path.suffix:
        case ".csv" | ".tsv":
            separator = "," if path.suffix == ".csv" else "\t"
            path.write_text("\n".join([separator.join(("url", "caption")), *(separator.join(r) for r in ROWS)]))
        case ".parquet":
            parquet.write_table(table, path)
        case _:
            path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.jsonl"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    table = read_url_table(str(write(tmp_path / name)), TableColumns())
    assert [(r["url"], r["caption"]) for r in table.pairs.to_pylist()] == ROWS


def test_every_row_that_is_left_out_is_counted_by_cause(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "link,text,part\n"
        "http://a.test/1.jpg,one,train\n"
        "http://a.test/1.jpg,again,train\n"
        ",no link,train\n"
        "ftp://a.test/2.jpg,wrong scheme,train\n"
        "http://a.test/3.jpg,,train\n"
        "http://a.test/4.jpg,odd,test\n"
        "http://a.test/5.jpg,held,held_out\n"
    )
    table = read_url_table(str(path), TableColumns("link", "text", "part"))
    assert table.rejected == {
        "URL that stands in the table twice": 1,
        "no URL": 1,
        "URL that is not http or https": 1,
        "empty caption": 1,
        "split that is not train or held_out": 1,
    }
    assert table.rows == table.pairs.num_rows + sum(table.rejected.values())
    assert table.pairs["split"].to_pylist() == ["train", "held_out"]


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert read_url_table(str(write(tmp_path / "t.csv")), TableColumns(), limit=1).rows == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "no URL table at"),
        ("t.csv", "", "is empty"),
        ("t.csv", "url,caption\n", "columns but no rows"),
        ("t.csv", "url,text\nhttp://a.test/1.jpg,one\n", "no column 'caption'; its columns are 'url', 'text'"),
        ("t.csv", "url,caption\nhttp://a.test/1.jpg,one,two,three\n", "cannot be parsed as csv"),
        ("t.jsonl", "{not json", "cannot be parsed as jsonl"),
        ("t.parquet", "not parquet", "cannot be parsed as parquet"),
        ("t.xls", "x", "unknown format '.xls'"),
        ("t.csv", "url,caption\nfile:///etc/passwd,one\n", "no row of"),
    ],
)
def test_an_unusable_table_says_why(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UrlTableError, match=says):
        read_url_table(str(path), TableColumns())


def test_the_digest_follows_content_not_path(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.csv"), write(tmp_path / "b.csv")
    assert url_table_digest(str(a)) == url_table_digest(str(b))
    b.write_text(b.read_text() + "\nhttp://a.test/9.jpg,nine")
    assert url_table_digest(str(a)) != url_table_digest(str(b))
