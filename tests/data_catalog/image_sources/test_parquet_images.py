"""Rows and images of Parquet files, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.image_sources.file_tree import ImageSourceError
from data_catalog.image_sources.find_tree import find_tree
from data_catalog.image_sources.parquet_images import ParquetImages, file_of
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import TableColumns
from tests.support.image_sets import image_set, write_parquet

MOST = 1 << 20


def source(place: Path, image_column: str = "image") -> ParquetImages:
    return ParquetImages(find_tree(str(place)), image_column)


def urls(images: ParquetImages) -> list[str]:
    batches = images.batches(TableColumns())
    return [url for batch in batches for url in batch.rows["url"].to_pylist()]


def bodies(images: ParquetImages, most: int = MOST) -> list[bytes | str]:
    found = images.bodies(urls(images), most)
    return [body if isinstance(body, bytes) else str(body) for body in found]


def test_rows_and_images_across_files_and_groups(tmp_path: Path) -> None:
    expected = image_set(40)
    write_parquet(tmp_path / "a b.parquet", expected[:25], group=20)
    write_parquet(tmp_path / "c.parquet", expected[25:], group=4)
    images = source(tmp_path)
    images.check(TableColumns())
    assert urls(images)[26] == "parquet:c.parquet!/1"
    assert file_of("parquet:a%20b.parquet!/3") == "a b.parquet"
    assert bodies(images) == [image.content for image in expected]
    some = [urls(images)[n] for n in (3, 19, 20, 24, 39)]
    assert list(images.bodies(some, MOST)) == [expected[n].content for n in (3, 19, 20, 24, 39)]
    assert images.rows_about() == 40
    assert images.columns() == ["caption"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_columns_of_bytes_with_gaps(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([b"one", None, b"x" * 50], kind)
    captions = pa.array(["a", "b", "c"]).dictionary_encode()
    parquet.write_table(pa.table({"jpg": values, "caption": captions}), tmp_path / "a.parquet")
    images = source(tmp_path, "jpg")
    images.check(TableColumns())
    assert bodies(images, most=10) == [b"one", "row without image bytes", "file too large"]


def test_structs_with_a_path_only(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = pa.array([{"bytes": None, "path": "/etc/passwd"}, None], kind)
    table = pa.table({"image": values, "caption": ["a", "b"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert bodies(source(tmp_path)) == ["row without image bytes"] * 2


def test_what_lacks_a_column_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", image_set(2))
    with pytest.raises(UrlTableError, match=r"Parquet file .* no column 'text'"):
        source(tmp_path).check(TableColumns(caption="text"))
    with pytest.raises(ImageSourceError, match=r"no images in a column 'jpg'.*: image; set"):
        source(tmp_path, "jpg").check(TableColumns())


def test_damaged_files_cost_their_own_rows(tmp_path: Path) -> None:
    expected = image_set(6)
    whole = write_parquet(tmp_path / "b.parquet", expected).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    images = source(tmp_path)
    images.check(TableColumns())
    assert bodies(images) == [image.content for image in expected]
    (bad,) = [bad for batch in images.batches(TableColumns()) for bad in batch.bad]
    assert bad.reason == "file that is damaged from there on"
    assert "a.parquet" in bad.text
    assert images.rows_about() == 6
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(UrlTableError, match=r"Parquet file .*a\.parquet cannot be parsed"):
        source(tmp_path).check(TableColumns())


def test_damaged_pages_are_counted(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", image_set(30), group=10)
    images = source(tmp_path)
    addresses = urls(images)
    content = bytearray(path.read_bytes())
    start = parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)
    results = list(images.bodies(addresses, MOST))
    assert len(results) == 30
    assert all(isinstance(body, bytes) for body in results[:10])
    assert {str(body) for body in results[10:] if not isinstance(body, bytes)} == {
        "damaged Parquet file"
    }
    path.unlink()
    assert {str(body) for body in images.bodies(addresses, MOST)} == {"no such file"}
