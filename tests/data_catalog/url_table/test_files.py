"""Files that are not what they seem: links, metadata beside tables, lost suffixes, encodings of
editors, silence."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.url_table import files as table_files
from data_catalog.url_table.rows import LONGEST_CELL
from data_catalog.url_table.table import (
    RowCounts,
    RowRules,
    TableColumns,
    UrlTableError,
    count_rows,
    open_url_table,
    url_table_digest,
)

CSV = "url,caption\nhttp://a.test/1,one\nhttp://a.test/2,zwei – 二\n"
PAIRS = [("http://a.test/1", "one"), ("http://a.test/2", "zwei – 二")]
BOMB_ROWS = 50_000


def pairs(source: str | Path, columns: TableColumns | None = None) -> list[tuple[str, str]]:
    table = open_url_table(str(source), columns or TableColumns())
    return [
        (row["url"], row["caption"])
        for shard in table.shards(1000)
        for row in shard.pairs.to_pylist()
    ]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_link_to_a_table_is_a_table(tmp_path: Path) -> None:
    put(tmp_path / "blobs" / "0f1e", CSV)
    folder = tmp_path / "snapshots"
    folder.mkdir()
    (folder / "train.csv").symlink_to("../blobs/0f1e")
    (folder / "again.csv").symlink_to("../blobs")
    assert pairs(folder) == PAIRS
    sources = str(folder), str(put(tmp_path / "t.csv", CSV))
    assert len({url_table_digest(source, TableColumns()) for source in sources}) == 1
    (folder / "gone.csv").symlink_to("../blobs/nowhere")
    with pytest.raises(UrlTableError, match=r"gone\.csv is a link to a file that does not"):
        open_url_table(str(folder), TableColumns())


@pytest.mark.parametrize("indent", [None, 2])
def test_metadata_beside_tables_are_no_table(tmp_path: Path, indent: int | None) -> None:
    put(tmp_path / "train.csv", CSV)
    put(
        tmp_path / "dataset_info.json",
        json.dumps({"features": {"url": "string"}, "n": 2}, indent=indent),
    )
    put(tmp_path / "state.json", "{}")
    assert pairs(tmp_path) == PAIRS
    assert count_rows(str(tmp_path), TableColumns()) == 2
    put(tmp_path / "more.json", json.dumps({"url": "http://a.test/3", "caption": "three"}))
    assert count_rows(str(tmp_path), TableColumns()) == 3, "one row is no metadata"
    put(tmp_path / "other.jsonl", '{"link": "x"}\n{"link": "y"}\n')
    with pytest.raises(UrlTableError, match=r"other\.jsonl has no column .*move it out of"):
        open_url_table(str(tmp_path), TableColumns())


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "utf-16-le-mark",
        "utf-16-be-mark",
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_table_may_come_in_what_an_editor_saves(tmp_path: Path, encoding: str, kind: str) -> None:
    text = CSV if kind == "csv" else CSV.replace(",", "\t")
    if kind == "jsonl":
        text = "".join(
            json.dumps({"url": u, "caption": c}, ensure_ascii=False) + "\n" for u, c in PAIRS
        )
    plain = encoding.removesuffix("-mark")
    data = (text if plain == encoding else "\ufeff" + text).replace("\n", "\r\n").encode(plain)
    assert pairs(put(tmp_path / f"t.{kind}", data)) == PAIRS
    assert pairs(put(tmp_path / f"t.{kind}.gz", gzip.compress(data))) == PAIRS


@pytest.mark.parametrize("name", ["t.csv", "t.csv.bz2"])
def test_a_packed_file_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    for packed in (
        gzip.compress(CSV.encode()),
        lzma.compress(CSV.encode()),
        bytes(pa.compress(CSV.encode(), codec="zstd")),
    ):
        assert pairs(put(tmp_path / name, packed)) == PAIRS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_columns_may_be_separated_and_named_in_other_ways(
    tmp_path: Path, name: str, delimiter: str
) -> None:
    text = CSV.replace("url,caption", "\n url , caption").replace(",", delimiter)
    assert pairs(put(tmp_path / name, text)) == PAIRS


def test_the_exact_name_of_a_column_comes_first(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "url, caption,caption\nhttp://a.test/1,no,yes\n")
    assert pairs(path) == [("http://a.test/1", "yes")]
    assert pairs(path, TableColumns(caption=" caption")) == [("http://a.test/1", "no")]
    with pytest.raises(UrlTableError, match="has 2 columns 'url'"):
        open_url_table(str(put(tmp_path / "u.csv", "url,url,caption\na,b,c\n")), TableColumns())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "t.json",
            '[{"url": "http://a", "caption": "b"}]',
            "a JSON array, but JSON lines are needed",
        ),
        (
            "t.jsonl",
            '[\n{"url": "http://a",\n"caption": "b"}\n]',
            "a JSON array, but JSON lines are needed",
        ),
        ("t.json", '{\n"url": "http://a",\n"caption": "b"\n}\n', "objects seem to span lines"),
        ("t.csv", b"PK\x03\x04rest", "a zip archive or a spreadsheet"),
        ("t.csv", b"PAR1rest", "it is Parquet"),
        ("t.parquet", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("t.jsonl", "\n<!DOCTYPE html><html></html>", "an HTML page"),
        (
            "t.csv",
            'url,"caption\nhttp://a,b\n',
            "a quotation mark in its first line is never closed",
        ),
        ("t.csv", "\n\n", "has no lines"),
    ],
)
def test_a_file_that_is_no_table_is_called_what_it_is(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    with pytest.raises(UrlTableError, match=says):
        open_url_table(str(put(tmp_path / name, content)), TableColumns())


def test_white_space_in_urls_is_taken_as_browsers_take_it(tmp_path: Path) -> None:
    urls = [
        " http://a.test/1 ",
        "http://a.test/2\n",
        "http://a.test/a b?c d",
        "http://a b.test/",
        "http://a.test/\tx",
    ]
    path = tmp_path / "t.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"url": url, "caption": "x"}) for url in [*urls, "\u00a0http://a.test/3"]
        )
    )
    table, account = open_url_table(str(path), TableColumns()), RowCounts()
    (shard,) = table.shards(10, account)
    assert shard.pairs["url"].to_pylist() == [
        *("http://a.test/1", "http://a.test/2", "http://a.test/a%20b?c%20d", "http://a.test/3")
    ]
    assert account.rejected == {"white space in the URL": 2}


def test_only_text_and_numbers_are_captions(tmp_path: Path) -> None:
    values = [
        None,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        [],
        [None],
        4,
        1.5,
        "nan",
        ["first", "second"],
    ]
    lines = [
        json.dumps({"url": f"http://a/{n}", "caption": value}) for n, value in enumerate(values)
    ]
    table = open_url_table(str(put(tmp_path / "t.jsonl", "\n".join(lines))), TableColumns())
    assert [caption for _, caption in pairs(tmp_path / "t.jsonl")] == ["4", "1.5", "nan", "first"]
    assert {(row.row, row.reason) for row in table.rejected_rows()} == {
        (n, "empty caption") for n in range(8)
    }
    for column in (
        pa.array([float("nan"), 1.5]),
        pa.array([None, 1.5], pa.float16()),
        pa.array([True, False]),
    ):
        parquet.write_table(
            pa.table({"url": ["http://a/1", "http://a/2"], "caption": column}),
            tmp_path / "t.parquet",
        )
        if pa.types.is_boolean(column.type):
            with pytest.raises(UrlTableError, match="empty caption: 2"):
                pairs(tmp_path / "t.parquet")
        else:
            assert pairs(tmp_path / "t.parquet") == [("http://a/2", "1.5")]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_captions_in_lists_are_further_captions(tmp_path: Path, kind: str) -> None:
    rows = [
        {"url": "http://a/0", "caption": ["a", "b", "c"]},
        {"url": "http://a/1", "caption": ["d"]},
        {"url": "http://a/2", "caption": []},
        {"url": "http://a/3", "caption": ["e", None]},
    ]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    columns = TableColumns(more_captions=("caption[1]", "caption[2]"))
    (shard,) = open_url_table(str(path), columns).shards(10)
    assert shard.pairs["caption"].to_pylist() == ["a", "d", "e"]
    assert [json.loads(more) for more in shard.pairs["more_captions"].to_pylist()] == [
        ["b", "c"],
        [None] * 2,
        [None] * 2,
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_cell_that_is_far_too_long_costs_its_row(tmp_path: Path, kind: str) -> None:
    rows = [
        *({"url": f"http://a/{n}", "caption": "fine"} for n in range(3)),
        {"url": "http://a/é" + "x" * LONGEST_CELL, "caption": "fine"},
        {"url": "http://a/b" + " " * LONGEST_CELL + "c", "caption": "fine"},
        {"url": "http://a/4", "caption": "é" * LONGEST_CELL},
    ]
    path = tmp_path / f"t.{kind}"
    table = pa.Table.from_pylist(rows)
    match kind:
        case "parquet":
            parquet.write_table(table, path)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case _:
            table.to_pandas().to_csv(path, index=False)
    account = RowCounts()
    (shard,) = open_url_table(str(path), TableColumns(), rules=RowRules(1, 1 << 30)).shards(
        10, account
    )
    assert shard.pairs["row"].to_pylist() == [0, 1, 2]
    assert account.rejected == {"URL too long": 2, "caption too long": 1}


def read_alone(path: Path) -> tuple[int, str, int]:
    """Exit code, output and most memory in MB of a process that reads a table."""
    code = (
        "import sys\n"
        "from data_catalog.url_table.table import *\n"
        "def peak(): return int(next(l for l in open('/proc/self/status') if "
        "l.startswith('VmHWM')).split()[1]) >> 10\n"
        "before = peak()\n"
        "try:\n"
        "    table = open_url_table(sys.argv[1], TableColumns(more_captions=('more',)) if 'more' "
        "in sys.argv[1] "
        "else TableColumns())\n"
        "    print(sum(shard.pairs.num_rows for shard in table.shards(10000)))\n"
        "except UrlTableError as error: print(error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    *output, memory = done.stdout.splitlines() or ["0"]
    return done.returncode, "\n".join(output) + done.stderr, int(memory)


def dictionary(*values: str, rows: int = BOMB_ROWS) -> pa.Array:
    indices = np.arange(rows, dtype=np.int32) % len(values)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(values))


@pytest.mark.parametrize("kind", ["one", "many-more", "huge", "plain", "list"])
def test_a_parquet_file_that_unfolds_to_gigabytes_is_read_in_little_memory(
    tmp_path: Path, kind: str
) -> None:
    urls = pa.array([f"http://a.test/{number}" for number in range(BOMB_ROWS)])
    path, options = tmp_path / f"{kind}.parquet", dict[str, object]()
    match kind:
        case "one":
            table = pa.table({"url": urls, "caption": dictionary("x" * 15_000)})
        case "many-more":
            captions = dictionary(*(letter * 10_000 for letter in "abcdefgh"))
            table = pa.table({"url": urls, "caption": captions, "more": captions})
        case "huge":
            table = pa.table({"url": urls, "caption": dictionary("x" * 5_000_000)})
        case "list":
            offsets = pa.array(np.arange(BOMB_ROWS + 1, dtype=np.int32))
            table = pa.table(
                {
                    "url": urls,
                    "caption": pa.ListArray.from_arrays(offsets, dictionary("x" * 15_000)),
                }
            )
        case _:
            table = pa.table({"url": urls, "caption": dictionary("x" * 3000)})
            options = {"use_dictionary": False}
    parquet.write_table(table, path, compression="zstd", **options)
    code, output, memory = read_alone(path)
    assert code == 0, output
    assert memory < 250, output
    assert (
        "text does not compress that well" if kind == "plain" else f"caption too long: {BOMB_ROWS}"
    ) in output


@pytest.mark.parametrize(
    "end", ['"never closed\n' + "x\n" * 300_000, '"' + "x" * 3_000_000, "\n" + ",,,\n" * 300_000]
)
def test_a_packed_table_that_cannot_be_parsed_ends_no_interpreter(tmp_path: Path, end: str) -> None:
    path = put(tmp_path / "t.csv.gz", gzip.compress(b"url,caption\nhttp://a/1," + end.encode()))
    code, output, _memory = read_alone(path)
    assert code == 0, output
    assert "t.csv.gz cannot be parsed as csv: " in output


def test_a_server_that_never_answers_is_given_up_with_a_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_files, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for source in (
            f"http://127.0.0.1:{port}/t.csv",
            f"simplecache::http://127.0.0.1:{port}/t.parquet",
        ):
            with pytest.raises(UrlTableError, match=r"cannot be reached: no answer within 0\.2 s"):
                open_url_table(source, TableColumns())


def test_a_chained_url_whose_archive_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UrlTableError, match=r"cannot be reached: .*No such file.*missing\.zip"):
        open_url_table(f"zip://t.csv::{tmp_path}/missing.zip", TableColumns())
    with pytest.raises(UrlTableError, match="cannot be reached: File is not a zip file"):
        open_url_table(f"zip://t.csv::{put(tmp_path / 'x.zip', 'no zip')}", TableColumns())
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", CSV)
    assert pairs(f"zip://t.csv::{tmp_path}/t.zip") == PAIRS
    with pytest.raises(UrlTableError, match="no URL table at"):
        open_url_table(f"zip://u.csv::{tmp_path}/t.zip", TableColumns())


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.csv.gz", "t.csv.bz2", "t.parquet"]
)
def test_no_damage_ends_in_anything_but_a_message_or_an_account(tmp_path: Path, name: str) -> None:
    rows = [
        {"url": f"http://a.test/{number}", "caption": f'c é "{number}"'} for number in range(30)
    ]
    frame, path, rng = pa.Table.from_pylist(rows).to_pandas(), tmp_path / name, random.Random(0)
    match path.suffixes[0]:
        case ".parquet":
            frame.to_parquet(path)
        case ".csv" | ".tsv":
            frame.to_csv(path, index=False, sep="," if path.suffixes[0] == ".csv" else "\t")
        case _:
            frame.to_json(path, orient="records", lines=True)
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            place = rng.randrange(len(data))
            added = rng.choice(
                [b"", b'"', b"\n", b"\r", b"\0", b"\xff\xfe", b"[[", bytes([rng.randrange(256)])]
            )
            data[place : place + rng.randrange(3)] = added
        path.write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(1, len(data))])
        account = RowCounts()
        try:
            table = open_url_table(str(path), TableColumns())
            assert sum(shard.pairs.num_rows for shard in table.shards(7, account)) == account.usable
            assert len(list(table.rejected_rows())) == account.rejected.total()
        except UrlTableError:
            pass
