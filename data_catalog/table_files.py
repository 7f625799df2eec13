"""Files that hold a table: where they lie, how they are packed, and their bytes.

One file or a folder of them, on this disk or behind any fsspec URL. Knows nothing of what is in them.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}  # of all formats but parquet
BLOCK_BYTES = 4 << 20
_SECRET = re.compile(r"sig(nature)?$|token|secret|password|credential|api.?key", re.IGNORECASE)


class UrlTableError(ValueError):
    """A URL table that cannot be used; the message says why."""

    exit_code = 2


class TableMissing(UrlTableError):
    """There is nothing at the path."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table."""

    filesystem: Any  # fsspec's
    path: str
    format: str  # one of FORMATS
    packing: str | None  # a value of PACKINGS

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, unpacked. What goes wrong while they are read becomes a UrlTableError."""
        try:
            with self.filesystem.open(self.path, "rb") as packed:
                match self.packing:
                    case None:
                        yield packed
                    case "xz":
                        with lzma.open(packed) as unpacked:
                            yield unpacked
                    case packing:
                        yield pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), packing)
        except (pa.ArrowException, OSError, EOFError, lzma.LZMAError) as error:
            raise UrlTableError(f"URL table {self.path} cannot be parsed as {self.format[1:]}: {error}") from error

    def packed_blocks(self) -> Iterator[bytes]:
        """Its bytes as they are stored, some megabytes at a time. Raises UrlTableError."""
        try:
            with self.filesystem.open(self.path, "rb") as stream:
                while block := stream.read(BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise UrlTableError(f"URL table {self.path} cannot be read: {error}") from error


def table_files(source: str) -> tuple[TableFile, ...]:
    """The files of a table, in order of their names; a folder may hold other files too. Raises UrlTableError."""
    filesystem, path = _locate(source)
    try:
        there = filesystem.exists(path)
    except Exception as error:  # each remote file system has errors of its own
        raise UrlTableError(f"URL table {source} cannot be reached: {error}") from error
    if not there:
        raise TableMissing(f"no URL table at {source}; give a path to a table, or 'shapes' for the built-in data set")
    if not filesystem.isdir(path):
        return (_table_file(filesystem, path, filesystem.size(path)),)
    entries = sorted(filesystem.ls(path, detail=True), key=lambda entry: str(entry["name"]))
    files = tuple(
        _table_file(filesystem, entry["name"], entry["size"])
        for entry in entries
        if entry["type"] == "file" and _is_table(PurePosixPath(entry["name"]))
    )
    if not files:
        raise UrlTableError(f"URL table {source} is a folder without a table in it; known: {', '.join(FORMATS)}")
    return files


def secret_in(url: str) -> str | None:
    """What in a URL only its owner should see, by name: settings are recorded, and shown to others."""
    parts = urlsplit(url)
    if parts.password:
        return "a password"
    named = (name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return next((f"a {name!r} in its query" for name in named if _SECRET.search(name)), None)


def _locate(source: str) -> tuple[Any, str]:
    """the file system of a path or URL, and the path in it"""
    if "://" not in source:
        return LocalFileSystem(), LocalFileSystem._strip_protocol(source)
    protocol = source.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(source)  # type: ignore[no-any-return]
    except ImportError as error:
        hint = known_implementations.get(protocol, {}).get("err", str(error))
        raise UrlTableError(f"URL table {source} needs a package that is not installed: {hint}") from error
    except ValueError as error:
        raise UrlTableError(f"URL table {source}: {error}") from error


def _is_table(name: PurePosixPath) -> bool:
    return _format(name) in FORMATS and not name.name.startswith((".", "_"))


def _format(name: PurePosixPath) -> str:
    packed = name.suffix.lower() in PACKINGS
    kind = (PurePosixPath(name.stem) if packed else name).suffix.lower()
    return f"{kind}{name.suffix}" if packed and kind == ".parquet" else kind  # Parquet packs its columns itself


def _table_file(filesystem: Any, path: str, size: int | None) -> TableFile:
    name = PurePosixPath(path)
    if (kind := _format(name)) not in FORMATS:
        known = f"{', '.join(FORMATS)}, all but parquet also with {', '.join(PACKINGS)}"
        raise UrlTableError(f"URL table {path} has an unknown format {''.join(name.suffixes[-2:])!r}; known: {known}")
    if size == 0:
        raise UrlTableError(f"URL table {path} is empty")
    return TableFile(filesystem, path, kind, PACKINGS.get(name.suffix.lower()))
