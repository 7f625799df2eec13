"""Damaged tables of every format: rows that are counted, or the file and what is wrong with it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.support.command import REPOSITORY
from tests.support.fuzz import bounded_memory, check_explained, damaged, run_tld

_ROWS = [
    {"url": f"http://images.example/{i}.jpg", "caption": text}
    for i, text in enumerate(
        ["a red star", 'a "quoted" word', "two\nlines", "", "Größe 星 😀", "a, b; c\td"] * 4
    )
]


def _delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["url", "caption"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(_ROWS)
    return text.getvalue().encode()


def _parquet() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(_ROWS), file)
    return file.getvalue()


_TABLES: dict[str, Callable[[], bytes]] = {
    "urls.csv": lambda: _delimited(","),
    "urls.tsv": lambda: _delimited("\t"),
    "urls.jsonl": lambda: "\n".join(map(json.dumps, _ROWS)).encode(),
    "urls.parquet": _parquet,
    "urls.csv.gz": lambda: gzip.compress(_delimited(",")),
    "urls.jsonl.bz2": lambda: bz2.compress("\n".join(map(json.dumps, _ROWS)).encode()),
}
_PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress}


@pytest.mark.parametrize("name", _TABLES)
@given(data=st.data())
def test_commands_explain_any_table(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = _TABLES[name]()
    content = data.draw(damaged(whole))
    _explain(name, content, tmp_path_factory)


@pytest.mark.parametrize("name", ["urls.csv.gz", "urls.jsonl.bz2"])
@given(data=st.data())
def test_commands_explain_what_a_packed_table_holds(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = _TABLES[name.rpartition(".")[0]]()
    _explain(name, _PACKERS[name.rpartition(".")[2]](data.draw(damaged(plain))), tmp_path_factory)


def _explain(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    words = (REPOSITORY / "conf/tiny.yaml", f"download.urls={path}", f"root={path.parent}/nowhere")
    with bounded_memory(500):
        check_explained(run_tld("download", *words, "--plan"))
        check_explained(run_tld("catalog", "dropped", *words))
