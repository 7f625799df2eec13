import bz2
import gzip
import json
import lzma
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.url_table import formats as table_formats
from data_catalog.url_table import row_checks as row_rules
from data_catalog.url_table.table import (
    RowCounts,
    RowRules,
    TableColumns,
    UrlTable,
    UrlTableError,
    count_rows,
    open_url_table,
    url_table_digest,
)

COLUMNS = TableColumns()
ROWS = [("http://a.test/1.jpg", "one"), ("http://a.test/2.jpg", "zwei – 二")]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd")),
}


def write(path: Path, rows: list[tuple[str, str]] = ROWS) -> Path:
    """Rows in the format of the path's suffixes."""
    kind, packing = path.suffixes[0], path.suffixes[1] if len(path.suffixes) > 1 else ""
    table = pa.table({"url": [r[0] for r in rows], "caption": [r[1] for r in rows]})
    match kind:
        case ".csv" | ".tsv":
            separator = "," if kind == ".csv" else "\t"
            text = "\n".join(
                [separator.join(("url", "caption")), *(separator.join(r) for r in rows)]
            )
        case ".parquet":
            parquet.write_table(table, path)
            return path
        case _:
            text = "\n".join(json.dumps(row) for row in table.to_pylist())
    path.write_bytes(PACK[packing](text.encode()))
    return path


def text_table(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read(
    source: str | Path, rules: RowRules | None = None, limit: int | None = None
) -> tuple[list[int], RowCounts]:
    """Numbers of the usable rows, and the account."""
    table, account = open_url_table(str(source), TableColumns(), limit, rules), RowCounts()
    return [
        row for shard in table.shards(3, account) for row in shard.pairs["row"].to_pylist()
    ], account


def pairs(table: UrlTable, shard_size: int = 1000) -> list[tuple[str, str]]:
    return [
        (r["url"], r["caption"])
        for shard in table.shards(shard_size)
        for r in shard.pairs.to_pylist()
    ]


@pytest.mark.parametrize(
    "name",
    [
        "t.parquet",
        *(f"t{kind}{packing}" for kind in (".csv", ".tsv", ".jsonl") for packing in PACK),
    ],
)
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert pairs(open_url_table(str(path), TableColumns())) == ROWS
    assert count_rows(str(path), TableColumns()) == len(ROWS)


def test_every_row_that_is_left_out_is_counted_by_cause_and_can_be_listed(tmp_path: Path) -> None:
    source = text_table(
        tmp_path / "t.csv",
        "link,text,part\n"
        "http://a.test/1.jpg,one,train\n"
        "http://a.test/1.jpg,again,train\n"
        ",no link,train\n"
        "ftp://a.test/2.jpg,wrong scheme,train\n"
        "http://a.test/3.jpg,,train\n"
        "http://a.test/4.jpg,odd,test\n"
        "http://a.test/5.jpg,held,held_out\n"
        "http://[::1/6.jpg,no address,train\n"
        "http://a.test/7.jpg,one cell too many,train,oh\n"
        "http://a.test/8.jpg,undecided,\n",
    )
    table, account = open_url_table(source, TableColumns("link", "text", "part")), RowCounts()
    (shard,) = table.shards(10, account)
    assert account.rejected == {
        "URL that stands in the table twice": 1,
        "no URL": 1,
        "URL that is not http or https": 1,
        "empty caption": 1,
        "split that is not train or held_out": 1,
        "URL that cannot be parsed": 1,
        "row that cannot be parsed": 1,
    }
    assert account.rows == 10 == shard.pairs.num_rows + account.rejected.total()
    assert shard.pairs["split"].to_pylist() == ["train", "held_out", ""]
    assert shard.pairs["row"].to_pylist() == [0, 6, 9]
    rejected = list(table.rejected_rows())
    assert [row.row for row in rejected] == [1, 2, 3, 4, 5, 7, 8]
    assert Counter(row.reason for row in rejected) == account.rejected
    assert rejected[0].caption == "again"


def test_captions_have_a_least_and_a_greatest_length(tmp_path: Path) -> None:
    captions = ["a", "ab", "abc", "äöüß", "abcde", "  ab  "]
    path = write(
        tmp_path / "t.csv", [(f"http://a.test/{i}", caption) for i, caption in enumerate(captions)]
    )
    usable, account = read(path, RowRules(min_caption_chars=2, max_caption_chars=4))
    assert usable == [1, 2, 3, 5]
    assert account.rejected == {"caption too short": 1, "caption too long": 1}


def test_a_limit_takes_the_first_rows_usable_or_not(tmp_path: Path) -> None:
    source = text_table(
        tmp_path / "t.csv", "url,caption\nhttp://a/1,x\nhttp://a/2\nhttp://a/3,\nhttp://a/4,y\n"
    )
    usable, account = read(source, limit=3)
    assert usable == [0]
    assert account.rows == 3
    assert (
        open_url_table("shapes", TableColumns(), limit=7).shards(5).__next__().pairs.num_rows == 5
    )


def test_a_folder_is_one_table_in_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "urls"
    folder.mkdir()
    write(folder / "b.csv.gz", [("http://a.test/3", "three"), ("http://a.test/1", "again")])
    write(folder / "a.parquet", [("http://a.test/1", "one"), ("http://a.test/2", "two")])
    (folder / "_SUCCESS").touch()
    (folder / "README.md").write_text("what this is")
    table, account = open_url_table(str(folder), TableColumns()), RowCounts()
    (shard,) = table.shards(10, account)
    assert shard.pairs["caption"].to_pylist() == ["one", "two", "three"]
    assert shard.pairs["row"].to_pylist() == [0, 1, 2]
    assert [(r.row, r.reason) for r in table.rejected_rows()] == [
        (3, "URL that stands in the table twice")
    ]
    assert count_rows(str(folder), TableColumns()) == 4
    assert read(folder, limit=3)[1].rows == 3
    (folder / "c.parquet").write_bytes(b"cut off")
    with pytest.raises(UrlTableError, match=r"c\.parquet cannot be parsed"):
        open_url_table(str(folder), TableColumns())


def test_a_table_may_lie_behind_an_fsspec_url(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz")
    with fsspec.open("memory://tables/t.csv.gz", "wb") as file:
        file.write(path.read_bytes())
    for source in ("memory://tables/t.csv.gz", "memory://tables", f"file://{path}"):
        assert pairs(open_url_table(source, TableColumns())) == ROWS
        assert url_table_digest(source, COLUMNS) == url_table_digest(str(path), COLUMNS)
    for source, says in (
        ("memory://gone.csv", "no URL table at memory"),
        ("gs://b/t.csv", "needs a package .* gcsfs"),
        ("what://t.csv", "Protocol not known"),
    ):
        with pytest.raises(UrlTableError, match=says):
            open_url_table(source, TableColumns())


def test_bytes_that_are_not_utf8_cost_one_row(tmp_path: Path) -> None:
    source = text_table(
        tmp_path / "t.csv",
        "url,caption\nhttp://a/1,ok\nhttp://a/2,caf\xe9\nhttp://a/3,\xe9,\xe9\nhttp://a/4,ok\n".encode(
            "latin-1"
        ),
    )
    usable, account = read(source)
    assert usable == [0, 3]
    assert account.rejected == {"text that is not UTF-8": 1, "row that cannot be parsed": 1}
    damaged = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    parquet.write_table(
        pa.table({"url": ["http://a/1", "http://a/2"], "caption": damaged}), tmp_path / "t.parquet"
    )
    assert read(tmp_path / "t.parquet")[1].rejected == {"text that is not UTF-8": 1}


def test_a_quotation_mark_in_a_tsv_swallows_no_rows(tmp_path: Path) -> None:
    captions = ['" so she said', "two", '"quoted, with ""marks"" inside"', '5" pipe', '""', "six"]
    rows = [f"http://a/{number}\t{caption}" for number, caption in enumerate(captions)]
    table = open_url_table(
        text_table(tmp_path / "t.tsv", "\n".join(["url\tcaption", *rows])), TableColumns()
    )
    usable = [caption for _, caption in pairs(table)]
    assert usable == ['" so she said', "two", 'quoted, with "marks" inside', '5" pipe', "six"]
    assert [(row.row, row.reason) for row in table.rejected_rows()] == [(4, "empty caption")]


def test_a_csv_caption_may_have_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    source = text_table(
        tmp_path / "t.csv", 'url,caption\nhttp://a/1,"one, ""two""\nthree"\nhttp://a/2,NA\n'
    )
    assert pairs(open_url_table(source, TableColumns())) == [
        ("http://a/1", 'one, "two"\nthree'),
        ("http://a/2", "NA"),
    ]


def test_a_shard_travels_alone(tmp_path: Path) -> None:
    rows = [(f"http://a.test/{number}", "a caption") for number in range(20_000)]
    table = open_url_table(str(write(tmp_path / "t.parquet", rows)), TableColumns())
    assert len(pickle.dumps(next(table.shards(10)))) < 5000


def test_columns_of_any_type_become_text_and_others_are_not_looked_at(tmp_path: Path) -> None:
    table = pa.table(
        {
            "url": pa.array(["http://a/1", "http://a/2", None]).dictionary_encode(),
            "caption": pa.array([1, None, 3]),
            "picture": pa.array([b"\xff", b"\xfe", b"\xfd"]),
            "when": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    (shard,) = open_url_table(str(tmp_path / "t.parquet"), TableColumns()).shards(10)
    assert shard.pairs.to_pylist() == [{"url": "http://a/1", "caption": "1", "split": "", "row": 0}]
    parquet.write_table(
        pa.table({"url": ["http://a/1"], "caption": [{"en": "one"}]}), tmp_path / "s.parquet"
    )
    with pytest.raises(UrlTableError, match=r"a column of type struct<.*> holds no text"):
        open_url_table(str(tmp_path / "s.parquet"), TableColumns())


def test_damaged_lines_of_json_are_counted_and_numbers_taken_as_text(tmp_path: Path) -> None:
    lines = [
        json.dumps({"url": f"http://a/{number}", "caption": "x", "tags": [1]})
        for number in range(9)
    ]
    lines[2], lines[4], lines[6] = (
        '{"url": ',
        '{"url": "http://a/4", "caption": 4}',
        '{"url": "http://a/6"}',
    )
    usable, account = read(text_table(tmp_path / "t.jsonl", "\n\n".join(lines)))
    assert usable == [0, 1, 3, 4, 5, 7, 8]
    assert account.rejected == {"row that cannot be parsed": 1, "empty caption": 1}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_table_of_many_pieces_is_judged_as_row_by_row(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_formats, "BATCH_ROWS", 7001)
    monkeypatch.setattr(table_formats, "BLOCK_BYTES", 1 << 18)
    count, rng = 200_000 if kind == "parquet" else 20_000, np.random.default_rng(0)
    hosts, numbers = rng.integers(0, 50, count), rng.integers(0, count, count)
    rows = [
        (f"https://host{host}.test/p/{number}.jpg", f"caption {number}")
        for host, number in zip(hosts, numbers, strict=True)
    ]
    odd = [
        "",
        "ftp://x/y",
        "http://",
        "HTTP://Host.test:80/a b",
        "https://bücher.test/ä.jpg",
        "http://h:99999/",
        "/x",
    ]
    for place in rng.integers(0, count, count // 50):
        rows[place] = (odd[place % len(odd)], rows[place][1])
    for place in rng.integers(0, count, count // 50):
        rows[place] = (rows[place][0], "x" * 1001 if place % 2 else "")
    path = write(tmp_path / f"t.{kind}", rows)

    usable, account = read(path)
    expected, rejected = judged_one_by_one(rows)
    assert usable == expected
    assert account.rejected == rejected
    assert account.rows == count
    sizes = [
        shard.pairs.num_rows for shard in open_url_table(str(path), TableColumns()).shards(999)
    ]
    assert set(sizes[:-1]) == {999}
    assert sum(sizes) == len(usable)


def judged_one_by_one(rows: list[tuple[str, str]]) -> tuple[list[int], Counter[str]]:
    """The rules again, in plain Python."""
    usable: list[int] = []
    rejected, seen = Counter[str](), set[str]()
    for number, (url, caption) in enumerate(rows):
        if cause := plain_cause(url, caption, seen):
            rejected[cause] += 1
        else:
            seen.add(url.replace(" ", "%20"))
            usable.append(number)
    return usable, rejected


def plain_cause(url: str, caption: str, seen: set[str]) -> str:
    url = url.replace(" ", "%20")
    if not url:
        return "no URL"
    parts = urlsplit(url)
    if ":99999" in url:
        return "URL that cannot be parsed"
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return "URL that is not http or https"
    if not caption:
        return "empty caption"
    if len(caption) > 1000:
        return "caption too long"
    return "URL that stands in the table twice" if url in seen else ""


def test_rows_keep_their_numbers_however_many_before_them_cannot_be_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_formats, "BLOCK_BYTES", 1 << 14)
    bad = {*range(0, 9000, 97), *range(4000, 4050), 8999}
    rows = [f"http://a/{number},c{number}{',x' * (number in bad)}" for number in range(9000)]
    source = text_table(tmp_path / "t.csv", "\n".join(["url,caption", *rows]))
    table, account = open_url_table(source, TableColumns()), RowCounts()
    for shard in table.shards(1000, account):
        for row in shard.pairs.to_pylist():
            assert row["caption"] == f"c{row['row']}"
    assert account.rejected == {"row that cannot be parsed": len(bad)}
    assert [row.row for row in table.rejected_rows()] == sorted(bad)


def test_a_url_is_known_again_however_many_came_between() -> None:
    seen = row_rules.SeenUrls()
    urls = pa.array([f"http://a.test/{number}" for number in range(10_000)])
    for start in range(0, 10_000, 100):
        assert not seen.add(urls.slice(start, 100)).any()
    assert seen.add(urls).all()
    assert seen.add(pa.array(["http://new", "http://a.test/77", "http://new"])).tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "no URL table at"),
        ("t.csv", "", "is empty"),
        ("t.csv", "url,caption\n", "columns but no rows"),
        (
            "t.csv",
            "url,text\nhttp://a.test/1.jpg,one\n",
            "no column 'caption'; its columns are 'url', 'text'",
        ),
        ("t.jsonl", '{"url": "http://a"}\n', "no column 'caption'; its columns are 'url'"),
        ("t.csv", "url,caption\nhttp://a.test/1.jpg,one,two,three\n", "cannot be parsed as csv"),
        ("t.jsonl", "{not json", "cannot be parsed as jsonl"),
        ("t.parquet", "not parquet", "cannot be parsed as parquet"),
        ("t.csv.gz", "not packed", "cannot be parsed as csv"),
        ("t.xls", "x", "unknown format '.xls'"),
        ("t.parquet.gz", "x", "unknown format '.parquet.gz'"),
    ],
)
def test_an_unusable_table_says_why_before_any_work(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UrlTableError, match=says):
        open_url_table(str(path), TableColumns())


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(UrlTableError, match="is a pipe or a device"):
        open_url_table(str(tmp_path / "t.csv"), TableColumns())


def test_a_table_without_a_usable_row_says_so_at_its_end(tmp_path: Path) -> None:
    table = open_url_table(
        text_table(tmp_path / "t.csv", "url,caption\nfile:///etc/passwd,one\n"), TableColumns()
    )
    with pytest.raises(UrlTableError, match="has no usable row"):
        list(table.shards(10))


def test_a_packed_table_that_breaks_off_is_an_error_not_a_short_table(tmp_path: Path) -> None:
    rows = [(f"http://a.test/{number}", f"{number * 7919}") for number in range(300_000)]
    path = write(tmp_path / "t.csv.gz", rows)
    path.write_bytes(path.read_bytes()[:-1000])
    table = open_url_table(str(path), TableColumns())
    with pytest.raises(UrlTableError, match="cannot be parsed as csv"):
        list(table.shards(1000))


def test_the_digest_follows_content_not_path(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.csv"), write(tmp_path / "b.csv")
    assert url_table_digest(str(a), COLUMNS) == url_table_digest(str(b), COLUMNS)
    b.write_text(b.read_text() + "\nhttp://a.test/9.jpg,nine")
    assert url_table_digest(str(a), COLUMNS) != url_table_digest(str(b), COLUMNS)
