"""Reading of images that exist already, in the place of the opener for URLs."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from data_catalog.image_sources.file_tree import NoContent
from data_catalog.image_sources.source import ImagesAt, ImageSource, image_reader
from data_catalog.shapes import dataset as shapes
from pipeline.compute.resource_limits import Shortage, own_shortage_raised, shortage_of
from pipeline.config.download import DownloadConfig
from pipeline.download.http.failure_causes import cause_of
from pipeline.download.http.messages import FetchFailed
from pipeline.download.http.opener import GuardedOpener
from pipeline.stages.progress import LiveCount

_MEGABYTE = 1 << 20


class Opener(Protocol):
    """What img2dataset gets the content of images from, in place of urllib's opener."""

    @property
    def threads(self) -> int:
        """The number of threads that may call `open`."""

    @property
    def shortage(self) -> Shortage | None:
        """What this machine ran out of, so that images of the shard were skipped."""

    def start_shard(self, urls: Sequence[str]) -> None:
        """Begin a shard with these URLs."""

    def end_shard(self) -> None:
        """Release what the shard held open."""

    def open(
        self, request: urllib.request.Request, data: None = None, timeout: object = None
    ) -> BinaryIO:
        """The content of a URL. Raises FetchFailed with a cause that can be counted."""

    def forget_body(self, size: int) -> None:
        """Release the memory of a content of this many bytes."""


@dataclass(frozen=True, slots=True)
class CountingOpener:
    """Counts what is asked of an opener, once it has answered or failed."""

    opener: Opener
    answered: LiveCount

    def open(
        self, request: urllib.request.Request, data: None = None, timeout: object = None
    ) -> BinaryIO:
        """The content of a URL. Raises what the opener does."""
        try:
            return self.opener.open(request, data, timeout)
        finally:
            self.answered.add()


class ImageOpener:
    """Gives the images of a shard in the order of its rows, as they are read from their source."""

    threads = 1  # img2dataset then asks in the order of the rows

    def __init__(self, config: DownloadConfig, at: ImagesAt) -> None:
        self._at, self._most_bytes = at, int(config.max_body_mb * _MEGABYTE)
        self._reader: ImageSource | None = None
        self._left: Iterator[bytes | Exception] = iter(())
        self._urls: Sequence[str] = ()
        self._asked = 0
        self.shortage: Shortage | None = None

    def start_shard(self, urls: Sequence[str]) -> None:
        """Begin a shard with these addresses."""
        self.shortage, self._urls, self._asked = None, urls, 0
        self._reader = self._reader or image_reader(self._at, urls[0])
        self._left = self._reader.bodies(urls, self._most_bytes)

    def end_shard(self) -> None:
        """Close the file that is being read."""
        self._left = iter(())

    def open(
        self, request: urllib.request.Request, data: None = None, timeout: object = None
    ) -> BinaryIO:
        """The content of the next image, which must be the one of the request.

        Raises:
            FetchFailed: The image could not be read.
            Shortage: This machine ran out of something.
        """
        del data, timeout
        if self._urls[self._asked] != request.full_url:
            raise AssertionError("images must be asked for in the order of their rows")
        self._asked += 1
        try:
            with own_shortage_raised():
                body = self._next()
        except Shortage as shortage:
            self.shortage = shortage
            raise
        if isinstance(body, bytes):
            return io.BytesIO(body)
        raise FetchFailed(self._cause_of(body)) from body

    def _next(self) -> bytes | Exception:
        """The next content, or why there is none. Raises what this machine ran out of."""
        assert self._reader
        try:
            body = next(self._left)
        except Exception as error:  # each remote file system has errors of its own
            body = error
            self._left = self._reader.bodies(self._urls[self._asked :], self._most_bytes)
        if isinstance(body, Exception) and shortage_of(body.__cause__ or body):
            raise body.__cause__ or body
        return body

    def _cause_of(self, error: Exception) -> str:
        """The cause to count. Clients of object stores have errors of their own, which may pass."""
        if isinstance(error, NoContent):
            return str(error)
        if isinstance(error, OSError):
            return cause_of(error)
        return "connection failed" if "://" in self._at.source else "file cannot be read"

    def forget_body(self, size: int) -> None:
        """Nothing is reserved: few images are in memory at a time."""


def opener_for(config: DownloadConfig, proxy: str) -> Opener:
    """The opener of a run: for URLs, or for images that exist already."""
    if at := config.rows.images:
        return ImageOpener(config, at)
    return GuardedOpener(config, proxy, shapes.HOST)
