"""Every row of a table is accounted for: what the readers take is compared with Python's own csv
and json modules on generated dirt, with blocks so small that every row crosses some."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from data_catalog.url_table import csv_rows as table_csv
from data_catalog.url_table import formats as table_formats
from data_catalog.url_table import text_lines as table_text
from data_catalog.url_table.files import TableFile, table_files
from data_catalog.url_table.formats import TableColumns, read_batches
from tests.support.generated import generated

QUICK = generated(120)
COLUMNS = TableColumns()
DELIMITERS = {".csv": ",", ".tsv": "\t"}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd")),
}
Cells = list[tuple[str, str]]

dirty_text = st.text(
    st.sampled_from([*'ab",;|\t\n\r é', "\u2028", "\x0b", "\x85", "\x00", "😀", "\ufeff"]),
    max_size=12,
)
urls = st.integers(0, 999).map(lambda number: f"http://a.test/{number}") | dirty_text
rows_of_cells = st.lists(st.tuples(urls, dirty_text), min_size=1, max_size=12)
block_sizes = st.sampled_from([1, 2, 3, 7, 64, 1 << 20])


@pytest.fixture(params=["", ".gz", ".zst"])
def packing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def the_rows(path: Path, block: int) -> tuple[dict[int, tuple[str, str]], list[int]]:
    """(url, caption) by the number of the row, and the numbers of the bad ones."""
    (file,) = table_files(str(path))
    good, bad = dict[int, tuple[str, str]](), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_formats, "BLOCK_BYTES", block)
        patch.setattr(table_formats, "BATCH_ROWS", 2)
        for batch in batches(file):
            for row in batch.rows.to_pylist():
                good[row["row"]] = (row["url"] or "", row["caption"] or "")
            bad += [row.row for row in batch.bad]
    assert sorted([*good, *bad]) == list(range(len(good) + len(bad))), "each row has one number"
    return good, bad


def batches(file: TableFile) -> Iterator[Any]:
    return read_batches(file, COLUMNS)


def reference(text: str, delimiter: str, strict: bool = False) -> list[list[str]]:
    """The rows behind the header as Python reads them, but for blank lines. Raises csv.Error where
    it is strict and a quotation mark closes in the middle of a cell or never."""
    return [
        row
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
        if row
    ][1:]


def written(rows: Cells, delimiter: str, quoting: Any, ending: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=ending)
    writer.writerows([("url", "caption"), *rows])
    return out.getvalue()


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
@QUICK
@given(
    rows=rows_of_cells,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    block=block_sizes,
    packing=st.sampled_from([*PACK]),
)
def test_what_a_csv_writer_wrote_is_read_as_python_reads_it(
    tmp_path: Path, kind: str, rows: Cells, quoting: Any, ending: str, block: int, packing: str
) -> None:
    text = written(rows, DELIMITERS[kind], quoting, ending)
    path = tmp_path / f"t{kind}{packing}"
    path.write_bytes(PACK[packing](text.encode()))
    good, bad = the_rows(path, block)
    expected = reference(text, DELIMITERS[kind])
    assert bad == [number for number, row in enumerate(expected) if len(row) != 2], (
        "a lone \\r ends a row, unquoted"
    )
    assert [list(good[number]) for number in sorted(good)] == [
        row for row in expected if len(row) == 2
    ]


lines = st.lists(st.sampled_from([*'a"",\t é', "http://x/1", "\x00"]), max_size=10).map("".join)


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
@QUICK
@given(
    dirt=st.lists(lines, max_size=12),
    block=block_sizes,
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
)
@example(dirt=['http://x/1,"a', "b,c", 'd"'], block=1 << 20, ending="\n")
@example(dirt=['"', '"a', "a", 'a"'], block=1, ending="\n")
def test_no_dirt_makes_a_row_vanish(
    tmp_path: Path, kind: str, dirt: list[str], block: int, ending: str
) -> None:
    delimiter = DELIMITERS[kind]
    text = ending.join(
        [
            delimiter.join(("url", "caption")),
            *dirt,
            delimiter.join(("http://last/1", "the last one")),
        ]
    )
    path = tmp_path / f"t{kind}"
    path.write_bytes(text.encode())
    good, bad = the_rows(path, block)
    alone = [
        row for line in dirt for row in csv.reader([line], delimiter=delimiter, strict=False) if row
    ]
    assert len(good) + len(bad) <= len(alone) + 1
    assert good[len(good) + len(bad) - 1] == ("http://last/1", "the last one"), (
        "no mark of it closes a value"
    )
    with suppress(
        csv.Error
    ):  # where marks are in order, a value may still be split, but nothing is put together
        assert len(reference(text, delimiter, strict=True)) <= len(good) + len(bad)
    if '"' not in text:  # then there is nothing to be decided
        assert [list(good[n]) for n in sorted(good)] == [
            row for row in reference(text, delimiter) if len(row) == 2
        ]
    assert (good, bad) == the_rows(path, 1 << 20), "blocks do not matter"


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
@QUICK
@given(
    stray=st.sets(st.integers(0, 29), max_size=6),
    well_quoted=st.sets(st.integers(0, 29), max_size=6),
    shut=st.sets(st.integers(0, 29), max_size=6),
    block=block_sizes,
)
def test_a_stray_quotation_mark_costs_its_own_line_at_most(
    tmp_path: Path, kind: str, stray: set[int], well_quoted: set[int], shut: set[int], block: int
) -> None:
    delimiter = DELIMITERS[kind]

    def caption(number: int) -> str:
        if number in stray:
            return f'"{number} inches, or so' if kind == ".tsv" else f'"{number} inches'
        if number in well_quoted:
            return f'"a {delimiter} and ""more"" of {number}"'
        return f'a screen of {number}"' if number in shut else f"plain {number}"

    rows = [f"http://a.test/{number}{delimiter}{caption(number)}" for number in range(30)]
    path = tmp_path / f"t{kind}"
    path.write_text("\n".join([f"url{delimiter}caption", *rows]))
    good, bad = the_rows(path, block)
    # Two neighbours that make one value by any rule are read as one by Python too.
    assert len(good) + len(bad) == 30
    assert set(bad) <= stray
    for number in set(range(30)) - stray - set(bad):
        expected = (
            f'a {delimiter} and "more" of {number}' if number in well_quoted else caption(number)
        )
        assert good[number] == (f"http://a.test/{number}", expected)
    if kind == ".tsv":
        assert not bad
        assert all(good[number][1] == caption(number) for number in stray)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | dirty_text | st.just("half \ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(dirty_text, inner, max_size=2),
    max_leaves=4,
)
json_rows = st.fixed_dictionaries(
    {}, optional={"url": urls | json_values, "caption": json_values, "tags": json_values}
)
json_lines = json_rows.map(json.dumps) | st.text(st.sampled_from([*'{}[]":,a1 \t']), max_size=8)


def json_reference(line: str) -> tuple[str, str] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    texts = []
    for name in ("url", "caption"):
        value = row.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, dict | list):
            return None
        if (
            value is None
            or isinstance(value, bool)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            value = ""
        texts.append(str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return texts[0], texts[1]


@QUICK
@given(dirt=st.lists(json_lines, max_size=10), block=block_sizes, packing=st.sampled_from([*PACK]))
def test_json_lines_are_read_as_python_reads_them(
    tmp_path: Path, dirt: list[str], block: int, packing: str
) -> None:
    text = "\n".join(['{"url": "http://first/1", "caption": "the first"}', *dirt])
    path = tmp_path / f"t.jsonl{packing}"
    path.write_bytes(PACK[packing](text.encode()))
    good, bad = the_rows(path, block)
    expected = [json_reference(line) for line in text.split("\n") if line.strip()]
    assert bad == [number for number, row in enumerate(expected) if row is None]
    assert good == {number: row for number, row in enumerate(expected) if row is not None}


cells = st.none() | dirty_text | st.text(max_size=4)


@QUICK
@given(
    rows=st.lists(st.tuples(cells, cells, st.lists(cells, max_size=2)), min_size=1, max_size=40),
    dictionary=st.booleans(),
    lists=st.booleans(),
    group=st.integers(1, 9),
)
def test_parquet_is_read_as_it_was_written(
    tmp_path: Path,
    rows: list[tuple[str | None, str | None, list[str | None]]],
    dictionary: bool,
    lists: bool,
    group: int,
) -> None:
    caption = (
        pa.array([row[2] for row in rows], pa.list_(pa.string()))
        if lists
        else pa.array([r[1] for r in rows])
    )
    table = pa.table({"url": pa.array([row[0] for row in rows], pa.string()), "caption": caption})
    parquet.write_table(
        table, tmp_path / "t.parquet", use_dictionary=dictionary, row_group_size=group
    )
    good, bad = the_rows(tmp_path / "t.parquet", 64)
    assert not bad
    texts = [(row[2][0] if row[2] else None) if lists else row[1] for row in rows]
    assert [good[n] for n in range(len(rows))] == [
        (row[0] or "", t or "") for row, t in zip(rows, texts, strict=True)
    ]


def test_a_line_that_is_too_long_is_one_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_lines(stream: Any, block: int) -> Iterator[table_text.Lines]:
        return table_text.read_lines(stream, block, longest=1000)

    monkeypatch.setattr(table_formats, "read_lines", short_lines)
    texts = {
        "t.csv": ["url,caption", "http://a/1,one", 'http://a/2,"' + "x" * 5000, "http://a/3,three"],
        "t.tsv": [
            "url\tcaption",
            "http://a/1\tone",
            "http://a/2\t" + "x" * 5000,
            "http://a/3\tthree",
        ],
        "t.jsonl": [
            json.dumps({"url": f"http://a/{n}", "caption": text})
            for n, text in [(1, "one"), (2, "x" * 5000), (3, "three")]
        ],
    }
    for name, written_lines in texts.items():
        for ending in ("\n", "\r\n", "\r"):
            for block in (1, 64):
                (tmp_path / name).write_bytes(ending.join(written_lines).encode())
                good, bad = the_rows(tmp_path / name, block)
                assert (good, bad) == (
                    {0: ("http://a/1", "one"), 2: ("http://a/3", "three")},
                    [1],
                ), (name, block)


def test_a_value_of_very_many_lines_is_a_stray_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        'url,caption,more\nhttp://a/1,"one\n' + "word\n" * 50 + '",end\nhttp://a/2,two,end\n'
    )
    assert the_rows(path, 1 << 20)[1] == []
    monkeypatch.setattr(table_csv, "_MOST_LINES", 20)
    for block in (7, 1 << 20):
        good, bad = the_rows(path, block)
        assert len(bad) == 52
        assert list(good.values()) == [("http://a/2", "two")]
