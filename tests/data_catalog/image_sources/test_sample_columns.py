"""The texts beside an image, by column."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_catalog.image_formats import is_image
from data_catalog.image_sources.sample_columns import (
    Sample,
    SampleRow,
    columns_of,
    key_of,
    sample_batches,
)
from data_catalog.url_table.rows import BadRow, TableColumns


def sample(name: str = "cats/red_apple-2.JPG", **files: str | bytes) -> Sample:
    contents = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
    return Sample(name, contents.get)


FIELDS: dict[str, Any] = {"caption": "from json", "tags": ["one", "two"], "n": 3, "key": "k7"}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("caption", "from txt"),
        ("file_name", "red apple 2"),
        ("folder_name", "cats"),
        ("blip", "suffix of a file"),
        ("tags", "one"),
        ("tags[1]", "two"),
        ("tags[2]", None),
        ("n", "3"),
        ("key", "k7"),
        ("missing", None),
    ],
)
def test_columns(column: str, text: str | None) -> None:
    files = {"txt": "\ufefffrom txt\n", "blip": "suffix of a file", "json": json.dumps(FIELDS)}
    assert sample(**files).text(column) == text


def test_true_and_false_are_text_only_in_columns_to_keep() -> None:
    row = SampleRow("x:1", sample(json='{"caption": true, "new": false}'))
    (batch,) = sample_batches(iter([row]), TableColumns(keep=("caption", "new")))
    texts = batch.rows.to_pylist()[0]
    assert (texts["caption"], texts["keep_1"], texts["keep_2"]) == (None, "true", "false")


def test_without_a_txt_the_json_has_the_caption_and_without_both_the_name_the_key() -> None:
    assert sample(json=json.dumps(FIELDS)).text("caption") == "from json"
    assert sample().text("caption") is None
    assert sample().text("key") == "cats/red_apple-2"


@pytest.mark.parametrize("damaged", ["{", "[1]", b"\xff\xfe\xff", "[" * 100_000, '{"a": {"b": 1}}'])
def test_a_damaged_json_is_a_bad_row(damaged: str | bytes) -> None:
    rows = [SampleRow("x:1", sample(json=damaged)), SampleRow("x:2", sample(json='{"a": "fine"}'))]
    (batch,) = sample_batches(iter(rows), TableColumns(caption="a"))
    assert [bad.row for bad in batch.bad] == [0]
    assert batch.rows["caption"].to_pylist() == ["fine"]
    assert batch.rows["row"].to_pylist() == [1]


def test_bad_rows_between_samples_get_their_numbers() -> None:
    rows: list[SampleRow | BadRow] = [
        SampleRow("x:1", sample(txt="a")),
        BadRow(0, "damage", "why"),
        SampleRow(None, sample()),
    ]
    (batch,) = sample_batches(iter(rows), TableColumns())
    assert [(bad.row, bad.reason) for bad in batch.bad] == [(1, "why")]
    assert batch.rows["url"].to_pylist() == ["x:1", None]
    assert batch.rows["row"].to_pylist() == [0, 2]


def test_batches_grow() -> None:
    rows = (SampleRow(f"x:{n}", sample(txt="a")) for n in range(1000))
    sizes = [batch.size for batch in sample_batches(rows, TableColumns())]
    assert sizes == [64, 256, 680]


def test_text_that_is_no_utf_8_is_marked() -> None:
    assert sample(txt=b"caf\xe9").text("caption") == "caf\N{REPLACEMENT CHARACTER}"


def test_suffixes() -> None:
    assert is_image("JPG")
    assert not is_image("txt")
    assert key_of("a.b/c.jpeg") == "a.b/c"
    assert key_of("a/v1.5") == "a/v1.5"


def test_columns_of_samples() -> None:
    samples = [sample(json=json.dumps(FIELDS)), sample(txt="x"), sample(json="{")]
    assert columns_of(samples) == ["caption", "tags", "key", "file_name", "folder_name"]
