"""Rows and images of webdataset tars, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.image_sources.file_tree import ImageSourceError
from data_catalog.image_sources.find_tree import find_tree
from data_catalog.image_sources.tar_images import TarImages, file_of
from data_catalog.url_table.rows import TableColumns
from tests.support.image_sets import image_set, write_members, write_tars

MOST = 1 << 20


def source(place: Path, image_column: str = "image") -> TarImages:
    return TarImages(find_tree(str(place)), image_column)


def rows(images: TarImages, caption: str = "caption") -> list[tuple[str | None, str | None]]:
    return [
        (row["url"], row["caption"])
        for batch in images.batches(TableColumns(caption=caption))
        for row in batch.rows.to_pylist()
    ]


def bodies(images: TarImages, most: int = MOST) -> list[bytes | str]:
    urls = [url for url, _ in rows(images) if url]
    found = images.bodies(urls, most)
    return [body if isinstance(body, bytes) else str(body) for body in found]


def test_rows_and_images_in_the_order_of_the_tars(tmp_path: Path) -> None:
    expected = image_set(7)
    images = source(write_tars(tmp_path / "a b", expected, 3))
    assert rows(images)[3] == ("tar:00001.tar!/0003.jpg", "picture number 3")
    assert [caption for _, caption in rows(images)] == [image.caption for image in expected]
    assert bodies(images) == [image.content for image in expected]
    assert file_of("tar:a%20b/00001.tar!/0003.jpg") == "a b/00001.tar"
    assert images.rows_about() in range(5, 10)


def test_any_part_of_the_rows_can_be_read(tmp_path: Path) -> None:
    expected = image_set(9)
    images = source(write_tars(tmp_path, expected, 4))
    urls = [url for url, _ in rows(images) if url]
    assert list(images.bodies(urls[2:7:2], MOST)) == [expected[n].content for n in (2, 4, 6)]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars(tmp_path: Path, mode: str) -> None:
    write_members(tmp_path / f"a.tar.{mode[2:]}", [("1.jpg", b"image"), ("1.txt", b"text")], mode)
    assert bodies(source(tmp_path)) == [b"image"]


def test_the_image_of_a_sample_with_several(tmp_path: Path) -> None:
    members = [(f"1.{suffix}", suffix.encode()) for suffix in ("mask.png", "crop.jpg", "jpg")]
    write_members(tmp_path / "a.tar", members)
    assert bodies(source(tmp_path)) == [b"jpg"]
    assert bodies(source(tmp_path, "crop.jpg")) == [b"crop.jpg"]


def test_odd_names(tmp_path: Path) -> None:
    names = ["./a b.JPG", "d/%#?.png", "写真.jpg", "caf\udce9.jpg", "../up.jpg", "/abs.jpg"]
    write_members(tmp_path / "a.tar", [(name, name.encode(errors="replace")) for name in names])
    images = source(tmp_path)
    assert bodies(images) == [name.encode(errors="replace") for name in names]
    assert rows(images, "key")[0][1] == "a b", "as `tar cf x.tar .` names it"


def test_samples_without_an_image_and_images_without_a_text(tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", [("1.txt", b"alone"), ("2.jpg", b"x"), ("3.jpg", b"y")])
    assert rows(source(tmp_path)) == [
        (None, "alone"),
        ("tar:a.tar!/2.jpg", None),
        ("tar:a.tar!/3.jpg", None),
    ]


def test_large_images_and_files_that_changed_are_counted(tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", [("1.jpg", b"x" * 100), ("2.jpg", b"y")])
    images = source(tmp_path)
    assert bodies(images, most=50) == ["file too large", b"y"]
    urls = [url for url, _ in rows(images) if url]
    write_members(tmp_path / "a.tar", [("1.jpg", b"x")])
    assert [str(body) for body in images.bodies(urls[1:], MOST)] == ["image is gone from its tar"]
    (tmp_path / "a.tar").unlink()
    assert [str(body) for body in images.bodies(urls, MOST)] == ["no such file"] * 2


def test_a_tar_that_is_cut_off_gives_the_rows_before(tmp_path: Path) -> None:
    write_tars(tmp_path, image_set(20), 10)
    first = tmp_path / "00000.tar"
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    images = source(tmp_path)
    images.check(TableColumns())
    batches = list(images.batches(TableColumns()))
    (bad,) = [bad for batch in batches for bad in batch.bad]
    assert bad.reason == "file that is damaged from there on"
    assert bad.text.startswith("00000.tar is damaged")
    count = sum(batch.rows.num_rows for batch in batches)
    assert 10 + 3 <= count < 20
    assert all(isinstance(body, bytes) for body in bodies(images))


def test_only_if_no_tar_can_be_read_is_the_source_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"garbage" * 500)
    (tmp_path / "1.tar").write_bytes(b"")
    (tmp_path / "2.tar").symlink_to("gone")
    images = source(tmp_path)
    with pytest.raises(ImageSourceError, match=r"0\.tar cannot be read as a tar.*2 others"):
        images.check(TableColumns())
    assert images.columns() == []
    assert images.rows_about() == 0
    write_members(tmp_path / "3.tar", [("1.jpg", b"x")])
    images = source(tmp_path)
    images.check(TableColumns())
    assert len(rows(images)) == 1
    assert sum(len(batch.bad) for batch in images.batches(TableColumns())) == 3


def test_the_digest_of_some_rows_is_that_of_their_tars(tmp_path: Path) -> None:
    write_tars(tmp_path, image_set(4), 2)
    images = source(tmp_path)
    urls = [url for url, _ in rows(images) if url]
    first, last = images.digest(urls[:2]), images.digest(urls[2:])
    write_members(tmp_path / "00000.tar", [("0000.jpg", b"x")])
    images = source(tmp_path)
    assert images.digest(urls[:2]) != first
    assert images.digest(urls[2:]) == last


def test_a_damaged_first_tar_hides_no_columns_and_no_rows(tmp_path: Path) -> None:
    write_tars(tmp_path, image_set(4), 2)
    (tmp_path / "00000.tar").write_bytes(b"damaged" * 200)
    assert "caption" in source(tmp_path).columns()
    assert source(tmp_path).rows_about() >= 2
