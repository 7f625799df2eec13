"""The opener that hands images which exist already to img2dataset."""

from __future__ import annotations

import errno
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from data_catalog.image_sources.file_tree import NoContent
from data_catalog.image_sources.folder_images import FolderImages
from data_catalog.image_sources.source import ImagesAt
from pipeline.compute.resource_limits import Shortage
from pipeline.config.download import DownloadConfig
from pipeline.download.http.failure_causes import is_transient
from pipeline.download.http.messages import FetchFailed
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.image_opener import ImageOpener, opener_for
from tests.support.image_sets import image_set, write_folder


@pytest.fixture
def opener(tmp_path: Path) -> ImageOpener:
    write_folder(tmp_path, image_set(4))
    (tmp_path / "0001.jpg").unlink()
    return ImageOpener(DownloadConfig(images=str(tmp_path)), ImagesAt(str(tmp_path)))


URLS = [f"file:{number:04d}.jpg" for number in range(4)]


def outcome(opener: ImageOpener, url: str) -> bytes | str:
    try:
        return opener.open(urllib.request.Request(url)).read()
    except FetchFailed as error:
        return str(error)


def test_images_come_in_the_order_of_the_rows(opener: ImageOpener) -> None:
    contents = [image.content for image in image_set(4)]
    expected = [contents[0], "no such file", contents[2], contents[3]]
    for _ in range(2):
        opener.start_shard(URLS)
        assert [outcome(opener, url) for url in URLS] == expected
        opener.end_shard()
    opener.start_shard(URLS)
    with pytest.raises(AssertionError, match="in the order"):
        outcome(opener, URLS[1])


def raising(error: Exception, *, as_content: bool) -> object:
    """Images of which the second cannot be read, for a reason that no source foresees."""

    def bodies(_self: object, urls: Sequence[str], _most: int) -> Iterator[bytes | Exception]:
        for url in urls:
            if url != URLS[1]:
                yield url.encode()
            elif as_content:
                yield error
            else:
                raise error

    return bodies


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("of a file system"), "file cannot be read"),
        (ConnectionResetError(), "connection reset"),
        (TimeoutError(), "timed out"),
    ],
)
@pytest.mark.parametrize("as_content", [True, False])
def test_an_error_costs_one_image(
    opener: ImageOpener,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    cause: str,
    as_content: bool,
) -> None:
    monkeypatch.setattr(FolderImages, "bodies", raising(error, as_content=as_content))
    opener.start_shard(URLS)
    results = [outcome(opener, url) for url in URLS]
    assert results == [URLS[0].encode(), cause, URLS[2].encode(), URLS[3].encode()]


def test_what_this_machine_lacks_is_no_fault_of_an_image(
    opener: ImageOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = NoContent("file cannot be read")
    lacking.__cause__ = OSError(errno.EMFILE, "too many open files")
    monkeypatch.setattr(FolderImages, "bodies", raising(lacking, as_content=True))
    opener.start_shard(URLS)
    outcome(opener, URLS[0])
    with pytest.raises(Shortage):
        outcome(opener, URLS[1])
    assert opener.shortage


def test_an_error_of_an_object_store_may_pass() -> None:
    remote = ImageOpener(DownloadConfig(images="s3://bucket/x"), ImagesAt("s3://bucket/x"))
    assert is_transient(remote._cause_of(RuntimeError("of a client")))


def test_urls_keep_their_opener(tmp_path: Path) -> None:
    assert isinstance(opener_for(DownloadConfig(images=str(tmp_path)), ""), ImageOpener)
    assert isinstance(opener_for(DownloadConfig(urls="x.csv"), ""), GuardedOpener)
