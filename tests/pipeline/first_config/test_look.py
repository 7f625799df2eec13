"""What a first look finds in each kind of input."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.url_table.files import UrlTableError
from pipeline.first_config.look import look_at
from tests.support.images import encoded, photo

CAPTIONS = ["a red dog", "a blue cat", "a green bird", "a white horse"]


def png(edge: int = 64) -> bytes:
    return encoded(photo(0, (edge + 20, edge)), "PNG")


def folder_of(path: Path, captions: list[str] | None = None) -> Path:
    path.mkdir(parents=True)
    for number in range(4):
        (path / f"{number}.png").write_bytes(png(64 + number))
        if captions:
            (path / f"{number}.txt").write_text(f"{captions[number]}\n", encoding="utf-8")
    return path


def test_a_folder_with_texts_beside_its_images(tmp_path: Path) -> None:
    look = look_at(str(folder_of(tmp_path / "photos", CAPTIONS)))

    assert (look.what, look.rows, look.columns.caption) == ("a folder of images", 4, "caption")
    assert look.captions == tuple(CAPTIONS)
    assert look.short_sides == (64, 65, 66, 67)
    assert look.share_of_side(66) == 0.5


def test_a_metadata_file_whose_captions_are_called_text(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos")
    with (photos / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("file_name", "id", "text"), *((f"{n}.png", n, CAPTIONS[n]) for n in range(4))]
        )
    assert look_at(str(photos)).columns.caption == "text"


def test_folders_of_classes_and_names_of_files(tmp_path: Path) -> None:
    for name in ("tabby_cats", "big_dogs"):
        folder_of(tmp_path / "classes" / name)
    look = look_at(str(tmp_path / "classes"))
    assert look.columns.caption == "folder_name"
    assert {*look.captions} == {"tabby cats", "big dogs"}

    names = tmp_path / "names"
    names.mkdir()
    (names / "a_red-apple.png").write_bytes(png())
    (names / "two pears.png").write_bytes(png())
    look = look_at(str(names))
    assert look.columns.caption == "file_name"
    assert look.captions == ("a red apple", "two pears")


def test_tars_whose_captions_stand_in_a_field_of_any_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for number, caption in enumerate(CAPTIONS):
            about = json.dumps({"sha": "0f" * 8, "what_one_sees": caption}).encode()
            for suffix, content in (("png", png()), ("json", about)):
                info = tarfile.TarInfo(f"{number:03}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    look = look_at(str(tmp_path / "*.tar"))

    assert (look.what, look.columns.caption) == ("webdataset tars", "what_one_sees")
    assert look.captions == tuple(CAPTIONS)


def test_parquet_whose_images_stand_in_a_column_of_any_name(tmp_path: Path) -> None:
    images = [{"bytes": png(), "path": None}] * 3 + [{"bytes": b"none", "path": None}]
    parquet.write_table(pa.table({"jpg": images, "prompt": CAPTIONS}), tmp_path / "a.parquet")
    look = look_at(str(tmp_path / "a.parquet"))

    assert (look.what, look.image_column) == ("Parquet files with images", "jpg")
    assert (len(look.short_sides), look.unreadable) == (3, 1)


def test_a_table_of_urls(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{n},https://example.org/{n}.jpg,{CAPTIONS[n]}" for n in range(4)]
    table.write_text("\n".join(["id,picture,alt", *rows]), encoding="utf-8")
    look = look_at(str(table))

    assert look.is_urls
    assert (look.columns.url, look.columns.caption, look.rows) == ("picture", "alt", 4)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UrlTableError, match=r"nothing at .*missing"):
        look_at(str(tmp_path / "missing"))
    (tmp_path / "notes.md").write_text("no image", encoding="utf-8")
    with pytest.raises(UrlTableError, match=r"no images at .*: it has 1 × \.md"):
        look_at(str(tmp_path))
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    (numbered / "IMG0001.png").write_bytes(png())
    with pytest.raises(UrlTableError, match=r"nothing at .* looks like captions.*NAME\.txt"):
        look_at(str(numbered))
