"""What is at a path, and what is said where it is no image source."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.image_sources.file_tree import ImageSourceError
from data_catalog.image_sources.folder_images import FolderImages
from data_catalog.image_sources.hub_images import HubImages
from data_catalog.image_sources.parquet_images import ParquetImages
from data_catalog.image_sources.source import ImagesAt, file_of, image_reader, open_images
from data_catalog.image_sources.tar_images import TarImages
from data_catalog.url_table.rows import TableColumns
from tests.support import image_sets
from tests.support.image_sets import image_set


def at(place: Path) -> ImagesAt:
    return ImagesAt(str(place))


def test_each_kind_is_recognized_and_read_again_by_its_addresses(tmp_path: Path) -> None:
    images = image_set(3)
    places = {
        FolderImages: image_sets.write_folder(tmp_path / "folder", images),
        TarImages: image_sets.write_tars(tmp_path / "tars", images, 2),
        ParquetImages: image_sets.write_parquet(tmp_path / "p/a.parquet", images).parent,
        HubImages: image_sets.write_dataset(tmp_path / "saved", images),
    }
    for kind, place in places.items():
        source = open_images(at(place))
        assert isinstance(source, kind)
        batches = source.batches(TableColumns())
        urls = [url for batch in batches for url in batch.rows["url"].to_pylist()]
        reader = image_reader(at(place), urls[0])
        assert list(reader.bodies(urls, 1 << 20)) == [image.content for image in images]


def test_img2datasets_table_beside_a_tar_is_no_source(tmp_path: Path) -> None:
    image_sets.write_tars(tmp_path, image_set(2), 2)
    image_sets.write_metadata(tmp_path / "x", image_set(1), "parquet")
    (tmp_path / "x/metadata.parquet").rename(tmp_path / "00000.parquet")
    (tmp_path / "x/0000.jpg").unlink()
    assert isinstance(open_images(at(tmp_path)), TarImages)


def test_several_kinds_are_refused_with_a_pattern_that_works(tmp_path: Path) -> None:
    image_sets.write_tars(tmp_path, image_set(2), 2)
    image_sets.write_folder(tmp_path / "a", image_set(2))
    with pytest.raises(ImageSourceError, match="holds tars and images") as told:
        open_images(at(tmp_path))
    pattern = Path(str(told.value).rpartition(" ")[2])
    assert isinstance(open_images(at(pattern)), TarImages)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("images.zip", "unpack archives first"),
        ("urls.csv", "belongs in download.urls"),
        ("a.docx", "1 × .docx"),
        (".hidden", "it has no files"),
    ],
)
def test_what_is_no_source_is_named(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageSourceError, match=hint) as told:
        open_images(at(tmp_path))
    assert told.value.exit_code == 2


def test_a_parquet_file_that_is_damaged_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImageSourceError, match="cannot be read as Parquet"):
        open_images(at(tmp_path))
    image_sets.write_parquet(tmp_path / "b.parquet", image_set(1))
    assert isinstance(open_images(at(tmp_path)), ParquetImages)


def test_the_file_or_folder_of_an_address() -> None:
    assert file_of("tar:a%20b/1.tar!/x.jpg") == "a b/1.tar"
    assert file_of("parquet:p.parquet!/3") == "p.parquet"
    assert file_of("file:cats/big/1.jpg") == "cats/big"
    assert file_of("dataset:7") == ""
