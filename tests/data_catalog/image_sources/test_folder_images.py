"""Rows and images of folders, with and without metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_catalog.image_sources.find_tree import find_tree
from data_catalog.image_sources.folder_images import FolderImages, name_of
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import TableColumns
from tests.support.image_sets import image_set, write_folder, write_metadata
from tests.support.users import as_another_user, shared_folder

MOST = 1 << 20


def source(folder: Path) -> FolderImages:
    return FolderImages(find_tree(str(folder)))


def rows(images: FolderImages, caption: str = "caption") -> list[tuple[str | None, str | None]]:
    return [
        (row["url"], row["caption"])
        for batch in images.batches(TableColumns(caption=caption))
        for row in batch.rows.to_pylist()
    ]


def body(images: FolderImages, url: str, most: int = MOST) -> bytes | str:
    (found,) = images.bodies([url], most)
    return found if isinstance(found, bytes) else str(found)


def test_captions_beside_images(tmp_path: Path) -> None:
    write_folder(tmp_path, image_set(2))
    (tmp_path / "0002.JPG").write_bytes(b"x")
    (tmp_path / "0002.TXT").write_text("in capitals")
    (tmp_path / "0003.png").write_bytes(b"x")
    (tmp_path / "0003.json").write_text(json.dumps({"caption": "in json"}))
    (tmp_path / "0004.png").write_bytes(b"x")
    (tmp_path / "notes.md").write_text("no image")
    captions = ["picture number 0", "picture number 1", "in capitals", "in json", None]
    assert [caption for _, caption in rows(source(tmp_path))] == captions
    assert source(tmp_path).rows_about() == 5


def test_names_as_captions(tmp_path: Path) -> None:
    (tmp_path / "wild cats").mkdir()
    (tmp_path / "wild cats/red_lynx-2.jpg").write_bytes(b"x")
    assert rows(source(tmp_path), "file_name")[0][1] == "red lynx 2"
    assert rows(source(tmp_path), "folder_name")[0][1] == "wild cats"


def test_odd_names(tmp_path: Path) -> None:
    names = ["a b.jpg", "100%#1?.jpg", "ü写真.jpg", os.fsdecode(b"caf\xe9.jpg"), "[x]{y}.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(os.fsencode(name))
    images = source(tmp_path)
    urls = [url for url, _ in rows(images) if url]
    assert sorted(map(name_of, urls)) == sorted(names)
    assert [body(images, url) for url in urls] == [os.fsencode(name_of(url)) for url in urls]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_metadata_come_first_and_the_rest_follows(tmp_path: Path, kind: str) -> None:
    write_metadata(tmp_path / "b", image_set(2), kind)
    (tmp_path / "a.jpg").write_bytes(b"x")
    images = source(tmp_path)
    images.check(TableColumns())
    assert rows(images) == [
        ("file:b/0000.jpg", "picture number 0"),
        ("file:b/0001.jpg", "picture number 1"),
        ("file:a.jpg", None),
    ]
    assert "caption" in images.columns()


def test_metadata_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    folder = tmp_path / "images"
    folder.mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "sub").mkdir()
    names = ["../secret.jpg", f"{tmp_path}/secret.jpg", "gone.jpg", "sub", "pipe.jpg", "a\0b.jpg"]
    lines = [json.dumps({"file_name": name, "caption": "x"}) for name in [*names, "", None]]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    images = source(folder)
    urls = [url for url, _ in rows(images)]
    assert urls[-2:] == [None, None]
    assert [body(images, url) for url in urls if url] == [
        *("file outside the folder",) * 2,
        *("no such file", "a folder, not a file", "file cannot be read", "no such file"),
    ]


def test_metadata_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,hello\n")
    with pytest.raises(UrlTableError, match=r"metadata file .* no column 'caption'.*'text'"):
        source(tmp_path).check(TableColumns())
    assert rows(source(tmp_path), "text") == [("file:a.jpg", "hello")]


def test_files_that_cannot_be_read_cost_their_own_row() -> None:
    with shared_folder() as folder:
        write_folder(folder, image_set(3))
        (folder / "0000.txt").chmod(0)
        (folder / "0001.jpg").chmod(0)
        with as_another_user():
            images = source(folder)
            (batch,) = images.batches(TableColumns())
            assert "0000.txt cannot be read" in batch.bad[0].text
            assert batch.rows["url"].to_pylist() == ["file:0001.jpg", "file:0002.jpg"]
            assert body(images, "file:0001.jpg") == "file cannot be read"


def test_large_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 100)
    assert body(source(tmp_path), "file:a.jpg", 99) == "file too large"
    assert body(source(tmp_path), "file:a.jpg", 100) == b"x" * 100
    (tmp_path / "a.txt").write_bytes(b"x" * (2 << 20))
    assert rows(source(tmp_path)) == [("file:a.jpg", None)]
