"""The files of an image source: a folder with all folders in it, a pattern, or a single file, on a
local disk or at any fsspec URL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

import braceexpand
from fsspec.implementations.local import LocalFileSystem

from data_catalog.redaction import redacted
from data_catalog.storage.digests import digest_of
from data_catalog.url_table.files import UrlTableError, cause_of, locate

_PATTERN = "*?["
# What file systems call the mark that changes with the content of a file.
_MARKS = ("ETag", "etag", "blob_id", "checksum", "mtime", "LastModified", "last_modified")


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
        """The files, sorted by name. Names that begin with a dot or an underscore are left out, as
        are those in such folders. Raises ImageSourceError if they cannot be listed."""
        try:
            found = sorted(self._found(), key=lambda file: file.name)
        except OSError as error:
            raise ImageSourceError(
                f"the images at {self.source} cannot be listed: {cause_of(error)}"
            ) from error
        return tuple(found)

    @cached_property
    def by_name(self) -> dict[str, FoundFile]:
        return {file.name: file for file in self.files}

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raises OSError."""
        return self.filesystem.open(self.path(name), "rb")  # type: ignore[no-any-return]

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

    def _found(self) -> Iterator[FoundFile]:
        if self.chosen is None:
            entries = self._local_files() if self.is_local else self._remote_files(self.root)
        else:
            entries = (entry for place in self.chosen for entry in self._at(place))
        seen = set[str]()
        for name, size, mark in entries:
            hidden = any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)
            if not hidden and name not in seen:
                seen.add(name)
                yield FoundFile(name, size, mark)

    def _at(self, place: str) -> Iterator[tuple[str, int, str]]:
        """The files of one pattern or path."""
        if _is_pattern(place):
            found = self.filesystem.glob(place, detail=True)
        else:
            found = {place: self.filesystem.info(place)}
        for path, info in found.items():
            if info["type"] == "directory":
                yield from self._remote_files(path)
            else:
                yield self._relative(path), info["size"] or 0, _mark(info)

    def _remote_files(self, folder: str) -> Iterator[tuple[str, int, str]]:
        for path, info in self.filesystem.find(folder, detail=True).items():
            yield self._relative(path), info["size"] or 0, _mark(info)

    def _local_files(self) -> Iterator[tuple[str, int, str]]:
        """All files under the root. Links are followed, but each folder is entered once."""
        entered = set[tuple[int, int]]()
        for folder, inner, names in os.walk(self.root, followlinks=True, onerror=_raise):
            inner.sort()
            about = Path(folder).stat()
            if (about.st_dev, about.st_ino) in entered:
                inner.clear()
                continue
            entered.add((about.st_dev, about.st_ino))
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118  # ten times as fast as pathlib
                try:
                    status = os.stat(path)  # noqa: PTH116
                except FileNotFoundError:
                    raise ImageSourceError(
                        f"{path} is a link to a file that does not exist; get the file, or remove "
                        "the link"
                    ) from None
                yield self._relative(path), status.st_size, str(status.st_mtime_ns)

    def _relative(self, path: str) -> str:
        return path.removeprefix(self.root.rstrip("/")).lstrip("/")


def find_tree(source: str) -> FileTree:
    """The files at a path, URL or pattern: `*`, `?` and `[…]` as in a shell, and `{00..11}` as in
    webdataset. Raises ImageSourceError if there is nothing."""
    try:
        filesystem, path = locate(source, "image source")
        if filesystem.exists(path):
            is_folder = filesystem.isdir(path)
            root = path if is_folder else _parent(path)
            return FileTree(source, filesystem, root, None if is_folder else (path,))
        places = tuple(
            locate(place, "image source")[1] for place in braceexpand.braceexpand(source)
        )
        missing = [p for p in places if not (_is_pattern(p) or filesystem.exists(p))]
        if not missing:
            return FileTree(source, filesystem, _common_root(places), places)
    except UrlTableError:
        raise
    except ValueError:  # of unbalanced braces
        places, missing = (source,), [source]
    except Exception as error:  # each remote file system has errors of its own
        raise ImageSourceError(
            f"the images at {redacted(source)} cannot be reached: {cause_of(error)}"
        ) from error
    raise ImageSourceError(
        f"there is nothing at {missing[0] if len(missing) > 1 else source}{_hint(source)}"
    )


def _hint(source: str) -> str:
    """What somebody may have meant by a path at which there is nothing."""
    if source.count("/") == 1 and "." not in source:
        return f"; for the data set {source} of the Hugging Face hub write hf://datasets/{source}"
    return ""


def _common_root(places: Sequence[str]) -> str:
    """The deepest folder that contains all files which these patterns can match."""
    fixed = [_parent(place[: _first_special(place)] + "x") for place in places]
    return os.path.commonpath(fixed) if len(fixed) > 1 else fixed[0]


def _first_special(place: str) -> int:
    return min((place.find(sign) for sign in _PATTERN if sign in place), default=len(place))


def _is_pattern(place: str) -> bool:
    return any(sign in place for sign in _PATTERN)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _mark(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _MARKS if info.get(name)), "")


def _raise(error: OSError) -> None:
    raise error
