"""Rows of images that exist already, with captions of their own or from a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_catalog.input_rows import InputRows, digests_of, open_rows
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.table import RowCounts
from pipeline.config.download import DownloadConfig
from tests.support.image_sets import image_set, write_folder, write_metadata, write_tars


def rows_of(place: Path, **settings: Any) -> InputRows:
    return DownloadConfig(images=str(place), **settings).rows


def usable(rows: InputRows) -> tuple[list[dict[str, Any]], RowCounts]:
    counts = RowCounts()
    shards = list(open_rows(rows).shards(100, counts))
    return [row for shard in shards for row in shard.pairs.to_pylist()], counts


def test_every_row_is_used_or_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, image_set(4))
    (tmp_path / "0001.txt").unlink()
    (tmp_path / "0002.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "0003.txt").write_text("x" * 1001)
    table, counts = usable(rows_of(tmp_path))
    assert [row["row"] for row in table] == [0]
    assert counts.rows == 4
    assert counts.rejected == {
        "empty caption": 1,
        "text that is not UTF-8": 1,
        "caption too long": 1,
    }
    assert [row.row for row in open_rows(rows_of(tmp_path)).rejected_rows()] == [1, 2, 3]


def test_splits_further_captions_and_the_limit(tmp_path: Path) -> None:
    write_folder(tmp_path, image_set(3), captions=False)
    for number, split in enumerate(("train", "held_out", "other")):
        fields = {"captions": [f"a{number}", f"b{number}"], "split": split}
        (tmp_path / f"000{number}.json").write_text(json.dumps(fields))
    settings = {"caption_column": "captions", "more_caption_columns": ["captions[1]"]}
    table, counts = usable(rows_of(tmp_path, split_column="split", **settings))
    assert [(row["caption"], row["split"], row["more_captions"]) for row in table] == [
        ("a0", "train", '["b0"]'),
        ("a1", "held_out", '["b1"]'),
    ]
    assert counts.rejected == {"split that is not train or held_out": 1}
    limited = rows_of(tmp_path, limit=1, **settings)
    assert len(usable(limited)[0]) == 1
    assert open_rows(limited).rows_about() == 1
    assert open_rows(rows_of(tmp_path, **settings)).rows_about() == 3


def test_an_image_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    images = image_set(2)
    write_metadata(tmp_path, [images[0], images[1], images[0]])
    table, counts = usable(rows_of(tmp_path))
    assert [row["url"] for row in table] == ["file:0000.jpg", "file:0001.jpg"]
    assert counts.rejected == {"image that is listed twice": 1}


def test_captions_from_a_table(tmp_path: Path) -> None:
    place = write_tars(tmp_path / "tars", image_set(3), 2)
    captions = tmp_path / "captions.csv"
    captions.write_text("key,caption\n0000.jpg,new\n0002,also\nelsewhere,unused\n")
    table, counts = usable(rows_of(place, captions=str(captions)))
    assert [(row["row"], row["caption"]) for row in table] == [(0, "new"), (2, "also")]
    assert counts.rejected == {"key that the table of captions lacks": 1}
    assert counts.unused_captions == 1
    captions.write_text("key,caption\nx/0000,new\n")
    with pytest.raises(UrlTableError, match=r"such as '0000', '0001', '0002'.*'x/0000'"):
        open_rows(rows_of(place, captions=str(captions)))


def test_captions_of_urls_are_joined_too(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("url,id\nhttp://x.org/1.jpg,1\nhttp://x.org/2.jpg,2\n")
    (tmp_path / "captions.csv").write_text("id,caption\n2,two\n")
    config = DownloadConfig(
        urls=str(tmp_path / "urls.csv"), captions=str(tmp_path / "captions.csv"), key_column="id"
    )
    table, _ = usable(config.rows)
    assert [(row["url"], row["caption"]) for row in table] == [("http://x.org/2.jpg", "two")]
    assert {*digests_of(config.rows)} == {"urls_digest", "captions_digest"}


def test_without_captions_it_is_said_which_columns_there_are(tmp_path: Path) -> None:
    write_folder(tmp_path, image_set(2), captions=False)
    (tmp_path / "0000.json").write_text('{"text": "hello"}')
    with pytest.raises(UrlTableError, match=r"columns with texts: text, file_name, folder_name"):
        open_rows(rows_of(tmp_path))
    assert len(usable(rows_of(tmp_path, caption_column="file_name"))[0]) == 2
    (tmp_path / "0001.json").write_text("{")
    (tmp_path / "0000.json").write_text("{")
    with pytest.raises(UrlTableError, match="no row that can be read; row that cannot be parsed"):
        open_rows(rows_of(tmp_path, caption_column="text"))


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_a_column_to_keep_that_no_image_has_is_named(tmp_path: Path, kind: str) -> None:
    images = [replace(image, columns={"style": "oil"}) for image in image_set(3)]
    place = tmp_path / kind
    if kind == "folder":
        write_folder(place, images)
    else:
        write_tars(place, images, 2)
    table, _ = usable(rows_of(place, keep_columns=["style", "folder_name"]))
    assert json.loads(table[2]["kept_columns"])["style"] == "oil"
    with pytest.raises(UrlTableError, match=r"has a text in 'concept'.*style.*keep_columns"):
        open_rows(rows_of(place, keep_columns=["style", "concept"]))


def test_columns_are_kept_beside_captions_from_a_table(tmp_path: Path) -> None:
    images = [replace(image, columns={"style": "oil"}) for image in image_set(2)]
    place = write_tars(tmp_path / "tars", images, 2)
    (tmp_path / "captions.csv").write_text("key,caption,alt\n0000,new,other\n")
    captions = {"captions": str(tmp_path / "captions.csv"), "more_caption_columns": ["alt"]}
    table, _ = usable(rows_of(place, keep_columns=["style"], **captions))
    assert [(row["caption"], row["more_captions"], row["kept_columns"]) for row in table] == [
        ("new", '["other"]', '{"style": "oil"}')
    ]


def test_the_digest_follows_the_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", image_set(2))
    before = digests_of(rows_of(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert digests_of(rows_of(tmp_path / "b")) == before
    (tmp_path / "b/0000.txt").write_text("another caption")
    assert digests_of(rows_of(tmp_path / "b")) != before


@pytest.mark.parametrize("key_column", ["key", "file_name"])
@pytest.mark.parametrize("kind", ["folder", "metadata", "tars"])
def test_captions_are_joined_by_the_names_of_files(
    tmp_path: Path, kind: str, key_column: str
) -> None:
    place, images = tmp_path / kind, image_set(3)
    if kind == "folder":
        write_folder(place, images, captions=False)
    elif kind == "metadata":
        write_metadata(place, images)
    else:
        write_tars(place, images, 2)
    table = tmp_path / "captions.csv"
    named = [f"{image.name},new {n}" for n, image in enumerate(images)]
    table.write_text("\n".join([f"{key_column},caption", *named]), encoding="utf-8")
    rows, counts = usable(rows_of(place, captions=str(table), key_column=key_column))
    assert [row["caption"] for row in rows] == ["new 0", "new 1", "new 2"]
    assert counts.unused_captions == 0
