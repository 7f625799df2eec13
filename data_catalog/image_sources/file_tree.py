"""The files of an image source: a folder with all folders in it, a pattern, or a single file, on a
local disk or at any fsspec URL."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import quote, unquote

from fsspec.implementations.local import LocalFileSystem

from data_catalog.storage.digests import digest_of
from data_catalog.url_table.files import UrlTableError, cause_of

PATTERN_SIGNS = "*?["
# What file systems call the mark that changes with the content of a file.
_MARKS = (
    "ETag",
    "etag",
    "blob_id",
    "checksum",
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
)


class ImageSourceError(UrlTableError):
    """Images cannot be used. The message names the source, with credentials redacted."""


class NoImages(ImageSourceError):
    """There are no images at a place, though there may be something else."""


class NoContent(Exception):
    """The content of an image cannot be given. The message is a cause that can be counted."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of an image source."""

    name: str
    """Relative to the root of the source, with slashes."""
    size: int
    """Bytes."""
    mark: str
    """Changes with the content: an ETag, or the time of the last change."""

    @property
    def suffix(self) -> str:
        """The last suffix in lower case, with its dot."""
        return PurePosixPath(self.name).suffix.lower()


@dataclass(frozen=True)
class FileTree:
    """An image source as a place with files. They are listed once, when they are asked for."""

    source: str
    filesystem: Any
    """fsspec's."""
    root: str
    """The folder that contains all its files."""
    chosen: tuple[str, ...] | None
    """Patterns and paths of its files; None for all files under the root."""

    @cached_property
    def files(self) -> tuple[FoundFile, ...]:
        """The files, sorted by name. Names that begin with a dot are left out, folders that begin
        with a dot or an underscore, and pipes, sockets and devices. A link to nothing stays, so
        that its image is counted. Raises ImageSourceError if they cannot be listed."""
        try:
            files = {
                file.name: file for place in self.chosen or (None,) for file in self._at(place)
            }
        except Exception as error:  # each remote file system has errors of its own
            if self.is_local and not isinstance(error, OSError):
                raise
            raise ImageSourceError(
                f"the images at {self.source} cannot be listed: {cause_of(error)}"
            ) from error
        return tuple(files[name] for name in sorted(files) if not _is_hidden(name))

    @cached_property
    def by_name(self) -> dict[str, FoundFile]:
        return {file.name: file for file in self.files}

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raises OSError, also for a pipe, socket or device, which could
        be waited for without end."""
        path = self.path(name)
        if self.is_local:
            mode = os.stat(path).st_mode  # noqa: PTH116
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", path)
        return self.filesystem.open(path, "rb")  # type: ignore[no-any-return]

    def why_not(self, error: OSError) -> Exception:
        """What to report of a file that cannot be read: a NoContent, or the error itself if the
        file is remote, because that may pass."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            cause = "no such file"
        elif isinstance(error, IsADirectoryError):
            cause = "a folder, not a file"
        elif self.is_local:
            cause = "file cannot be read"
        else:
            return error
        reported = NoContent(cause)
        reported.__cause__ = error
        return reported

    def path(self, name: str) -> str:
        """The path of a file in its file system."""
        return f"{self.root.rstrip('/')}/{name}"

    def digest(self, names: Iterable[str] | None = None) -> str:
        """SHA-256 of the names, sizes and marks of these files, or of all. The root does not
        count."""
        files = self.files if names is None else (self.by_name[name] for name in sorted(set(names)))
        return digest_of([[file.name, file.size, file.mark] for file in files])

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    def _at(self, place: str | None) -> Iterator[FoundFile]:
        """The files of one pattern or path, or of the root."""
        if self.is_local:
            for path in _matches(self.filesystem, self.root if place is None else place):
                is_folder = os.path.isdir(path)  # noqa: PTH112
                yield from self._local_files(path) if is_folder else self._local_file(path)
        elif place is None:
            yield from self._remote_files(self.root)
        else:
            pattern = is_pattern(place) and not self.filesystem.exists(place)
            for path, info in (
                self.filesystem.glob(place, detail=True)
                if pattern
                else {place: self.filesystem.info(place)}
            ).items():
                if info["type"] == "directory":
                    yield from self._remote_files(path)
                else:
                    yield self._remote_file(path, info)

    def _remote_files(self, folder: str) -> Iterator[FoundFile]:
        for path, info in self.filesystem.find(folder, detail=True).items():
            yield self._remote_file(path, info)

    def _remote_file(self, path: str, info: dict[str, Any]) -> FoundFile:
        return FoundFile(self._relative(path), info["size"] or 0, _mark(info))

    def _local_files(self, root: str) -> Iterator[FoundFile]:
        """All files under a folder. Links are followed, but each folder is entered once."""
        entered = set[tuple[int, int]]()
        for folder, inner, names in os.walk(root, followlinks=True, onerror=_raise):
            inner.sort()
            about = os.stat(folder)  # noqa: PTH116  # ten times as fast as pathlib
            if (about.st_dev, about.st_ino) in entered:
                inner.clear()
                continue
            entered.add((about.st_dev, about.st_ino))
            for name in names:
                yield from self._local_file(os.path.join(folder, name))  # noqa: PTH118

    def _local_file(self, path: str) -> Iterator[FoundFile]:
        """One file; nothing for what is no file, or vanished while the folder was listed."""
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            if os.path.islink(path):  # noqa: PTH114  # to nothing, or to itself
                yield FoundFile(self._relative(path), 0, "")
            elif not isinstance(error, FileNotFoundError):
                raise
        else:
            if stat.S_ISREG(status.st_mode):
                yield FoundFile(self._relative(path), status.st_size, str(status.st_mtime_ns))

    def _relative(self, path: str) -> str:
        return path.removeprefix(self.root.rstrip("/")).lstrip("/")


def _matches(filesystem: Any, place: str) -> list[str]:
    """The local paths that a pattern matches, sorted, or one that exists with such a name."""
    if is_pattern(place) and not os.path.lexists(place):
        return sorted(filesystem.glob(place))
    return [place]


def _is_hidden(name: str) -> bool:
    *folders, base = name.split("/")
    # Cameras name images _DSC0001.JPG.
    return base.startswith(".") or any(folder.startswith((".", "_")) for folder in folders)


def is_pattern(place: str) -> bool:
    """Whether a path has a sign that stands for others."""
    return any(sign in place for sign in PATTERN_SIGNS)


def quoted(name: str) -> str:
    """A name as part of an address. Bytes that are not UTF-8 survive."""
    return quote(name, errors="surrogateescape")


def unquoted(name: str) -> str:
    """The name of which `quoted` made a part of an address."""
    return unquote(name, errors="surrogateescape")


def _mark(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _MARKS if info.get(name)), "")


def _raise(error: OSError) -> None:
    raise error
