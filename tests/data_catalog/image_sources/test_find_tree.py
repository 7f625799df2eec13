"""Paths, patterns, braces and URLs of image sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from data_catalog.image_sources.file_tree import ImageSourceError
from data_catalog.image_sources.find_tree import find_tree
from tests.support.image_sets import image_set, serve


@pytest.fixture
def memory() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name in ("/doors/a/0.tar", "/doors/a/1.tar", "/doors/b.jpg"):
        files.pipe(name, b"content")
    yield "memory://doors"
    files.rm("/doors", recursive=True)


def names(source: Path | str) -> list[str]:
    return [file.name for file in find_tree(str(source)).files]


def write(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_patterns_and_braces(tmp_path: Path) -> None:
    write(tmp_path, "00.tar", "01.tar", "02.tar", "x.jpg", "sub/03.tar")
    assert names(tmp_path / "*.tar") == ["00.tar", "01.tar", "02.tar"]
    assert names(tmp_path / "0[12].tar") == ["01.tar", "02.tar"]
    assert names(tmp_path / "**/*.tar") == ["00.tar", "01.tar", "02.tar", "sub/03.tar"]
    assert names(tmp_path / "{00..01}.tar") == ["00.tar", "01.tar"]
    assert names(tmp_path / "{sub,x.jpg}") == ["sub/03.tar", "x.jpg"]
    assert names(tmp_path / "x.jpg") == ["x.jpg"]


def test_names_with_signs_of_patterns_stand_for_themselves(tmp_path: Path) -> None:
    write(tmp_path, "a[1].tar", "a1.tar", "{b}.tar", "un{closed.tar", "[f]/c.jpg")
    assert names(tmp_path / "a[1].tar") == ["a[1].tar"]
    assert names(tmp_path / "{b}.tar") == ["{b}.tar"]
    assert names(tmp_path / "un{closed.tar") == ["un{closed.tar"]
    assert names(tmp_path / "[f]") == ["c.jpg"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, "00.tar")
    with pytest.raises(ImageSourceError, match=r"nothing at .*01\.tar"):
        find_tree(str(tmp_path / "{00..01}.tar"))
    with pytest.raises(ImageSourceError, match="hf://datasets/owner/name"):
        find_tree("owner/name")
    with pytest.raises(ImageSourceError, match=r"un\{closed"):
        find_tree(str(tmp_path / "un{closed"))


def test_remote_places(memory: str) -> None:
    assert names(memory) == ["a/0.tar", "a/1.tar", "b.jpg"]
    assert names(f"{memory}/a/*.tar") == ["0.tar", "1.tar"]
    assert names(f"{memory}/a/{{0..1}}.tar") == ["0.tar", "1.tar"]
    assert names(f"{memory}/b.jpg") == ["b.jpg"]
    with pytest.raises(ImageSourceError, match="cannot be listed"):
        names(f"{memory}/a/{{0..5}}.tar")
    with find_tree(memory).open("b.jpg") as stream:
        assert stream.read() == b"content"


def test_files_of_a_web_server_have_sizes_and_marks() -> None:
    with serve(image_set(2)) as address:
        tree = find_tree(f"{address}/{{0000..0001}}.jpg")
        assert [file.name for file in tree.files] == ["0000.jpg", "0001.jpg"]
        assert all(file.size > 0 for file in tree.files)
        with tree.open("0001.jpg") as stream:
            assert stream.read() == image_set(2)[1].content


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "does not list folders"),
        ("/v1.0/", "does not list folders"),
        ("/folder", "does not list folders; name tar or Parquet files"),
        ("/tars/*.tar", r"/tars/{00000\.\.00009}\.tar"),
        ("/0.tar?sig=canary", "a URL with a query cannot be used"),
    ],
)
def test_what_a_web_server_cannot_give_is_refused(path: str, says: str) -> None:
    with serve([]) as address, pytest.raises(ImageSourceError, match=says) as refused:
        find_tree(f"{address}{path}")
    assert "canary" not in str(refused.value)
