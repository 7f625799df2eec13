"""The files of a URL table: how they are found, decompressed and read.

A table is one file or a folder of files, on a local disk or at any fsspec URL.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from data_catalog.redaction import redact_credentials

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}  # of all formats but parquet
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
_TIMEOUT_S = 30.0  # for a web server to answer; a request is tried twice
_BLOCK_BYTES = 4 << 20


class UrlTableError(ValueError):
    """A URL table cannot be used. The message gives the reason, with credentials redacted."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(redact_credentials(message))


class TableMissing(UrlTableError):
    """There is no table at the path."""


class NotATable(ValueError):
    """The content of a file is not a table. TableFile.open converts it to a UrlTableError."""


_DAMAGE = (pa.ArrowException, OSError, EOFError, lzma.LZMAError, NotATable)


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table."""

    filesystem: Any  # fsspec's
    path: str
    format: str  # one of FORMATS
    packing: str | None  # a value of PACKINGS
    what: str = "URL table"  # what it is, for errors

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file and decompress it. Errors while it is read become a UrlTableError."""
        try:
            packing = self._packing()
            with ExitStack() as stack:
                stream = stack.enter_context(self.filesystem.open(self.path, "rb"))
                if packing == "xz":
                    stream = stack.enter_context(lzma.open(stream))
                elif packing:
                    python_file = stack.enter_context(pa.PythonFile(stream, mode="r"))
                    stream = stack.enter_context(pa.CompressedInputStream(python_file, packing))
                yield stream
        except UrlTableError:
            raise
        except Exception as error:
            local = isinstance(self.filesystem, LocalFileSystem)
            # pyarrow raises KeyError and UnicodeDecodeError for damaged metadata, and each remote
            # file system has errors of its own.
            if local and not isinstance(error, (*_DAMAGE, KeyError, UnicodeDecodeError)):
                raise
            what = (
                "read"
                if isinstance(error, OSError) and error.errno
                else f"parsed as {self.format[1:]}"
            )
            raise UrlTableError(
                f"{self.what} {self.path} cannot be {what}: {cause_of(error)}"
            ) from error

    def _packing(self) -> str | None:
        """The compression by the first bytes, or else by the name: some files lost their .gz."""
        if self.format == ".parquet":
            return None
        with self.filesystem.open(self.path, "rb") as stream:
            head = stream.read(6)
        return next(
            (packing for mark, packing in _MAGIC.items() if head.startswith(mark)), self.packing
        )

    def packed_blocks(self) -> Iterator[bytes]:
        """The bytes as stored, in blocks of a few megabytes. Raises UrlTableError if reading
        fails."""
        try:
            with self.filesystem.open(self.path, "rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    yield block
        except Exception as error:
            if not isinstance(error, OSError) and isinstance(self.filesystem, LocalFileSystem):
                raise
            raise UrlTableError(
                f"{self.what} {self.path} cannot be read: {cause_of(error)}"
            ) from error


def table_files(source: str, what: str = "URL table") -> tuple[TableFile, ...]:
    """The files of a table, sorted by name. Other files in a folder are ignored, and links to files
    are followed. `what` names the table in errors.

    Raises:
        TableMissing: there is nothing at `source`.
        UrlTableError: the table cannot be reached, or its files cannot be used.
    """
    try:
        filesystem, path = locate(source, what)
        return _files_at(source, filesystem, path, what)
    except UrlTableError:
        raise
    except Exception as error:  # each remote file system has errors of its own
        cause = cause_of(error)
        # An error may name a single URL of a chain, with its query.
        for link in source.split("::"):
            cause = cause.replace(link, link.partition("?")[0])
        raise UrlTableError(f"{what} {source} cannot be reached: {cause}") from error


def _files_at(source: str, filesystem: Any, path: str, what: str) -> tuple[TableFile, ...]:
    if not _exists(filesystem, path):
        built_in = ", or 'shapes' for the built-in data set" if what == "URL table" else ""
        raise TableMissing(f"no {what} at {source}; give a path to a table{built_in}")
    # On the web, isdir would download the whole file.
    is_web_file = "http" in filesystem.protocol and _is_table(PurePosixPath(path))
    if is_web_file or not filesystem.isdir(path):
        if isinstance(filesystem, LocalFileSystem) and not filesystem.isfile(path):
            raise UrlTableError(
                f"{what} {source} is a pipe or a device, but tables are read twice; save it to "
                "a file"
            )
        return (_table_file(filesystem, path, filesystem.size(path), what),)
    entries = sorted(filesystem.ls(path, detail=True), key=lambda entry: str(entry["name"]))
    files = tuple(
        _table_file(filesystem, entry["name"], entry["size"], what)
        for entry in entries
        if _is_table(PurePosixPath(entry["name"])) and _is_file(filesystem, entry, what)
    )
    if not files:
        raise UrlTableError(
            f"{what} {source} is a folder without a table; known formats: {', '.join(FORMATS)}"
        )
    return files


def _exists(filesystem: Any, path: str) -> bool:
    """Whether something exists at a path. The check for web servers is our own, because fsspec
    reports a server that does not answer as a missing file."""
    if "http" not in getattr(filesystem, "fs", filesystem).protocol:
        return bool(filesystem.exists(path))
    try:
        filesystem.info(path)
    except FileNotFoundError as error:
        if error.__cause__ and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        return False
    return True


def _is_file(filesystem: Any, entry: dict[str, Any], what: str) -> bool:
    """Whether an entry of a folder is a file or a link to one. Raises UrlTableError for a broken
    link."""
    if entry["type"] == "file" or not entry.get("islink"):
        return bool(entry["type"] == "file")
    if not filesystem.exists(entry["name"]):
        raise UrlTableError(
            f"{what} {entry['name']} is a link to a file that does not exist; get the file, or "
            "remove the link"
        )
    return bool(filesystem.isfile(entry["name"]))


def locate(source: str, what: str = "URL table") -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it. `what` names it in errors. Raises
    UrlTableError if there is no such file system, or its package is missing."""
    if "://" not in source:
        return LocalFileSystem(), LocalFileSystem._strip_protocol(source)
    protocol = source.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(source, **_http_settings(source))  # type: ignore[no-any-return]
    except ImportError as error:
        hint = known_implementations.get(protocol, {}).get("err", str(error))
        raise UrlTableError(
            f"{what} {source} needs a package that is not installed: {hint}"
        ) from error
    except (ValueError, TypeError) as error:  # TypeError: the file system needs more than a URL
        raise UrlTableError(f"{what} {source}: {error}") from error


def _http_settings(source: str) -> dict[str, Any]:
    """Timeouts for web servers, wherever they occur in a chain of URLs."""
    schemes = [scheme for scheme in ("http", "https") if f"{scheme}://" in source]
    if not schemes:
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_S, sock_read=_TIMEOUT_S)
    return {scheme: {"client_kwargs": {"timeout": timeout}} for scheme in schemes}


def cause_of(error: BaseException) -> str:
    """A description of an error, even if the error itself has no message."""
    # fsspec reports every failure on the web as a missing file.
    if isinstance(error, FileNotFoundError) and error.__cause__:
        return cause_of(error.__cause__)
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return f"no answer within {_TIMEOUT_S:g} s"
    return str(error) or type(error).__name__


def _is_table(name: PurePosixPath) -> bool:
    return _format(name) in FORMATS and not name.name.startswith((".", "_"))


def _format(name: PurePosixPath) -> str:
    packed = name.suffix.lower() in PACKINGS
    kind = (PurePosixPath(name.stem) if packed else name).suffix.lower()
    # Parquet compresses its columns itself.
    return f"{kind}{name.suffix}" if packed and kind == ".parquet" else kind


def _table_file(filesystem: Any, path: str, size: int | None, what: str) -> TableFile:
    # The query of a signed URL is not part of the name.
    name = PurePosixPath(path.partition("?")[0] if "://" in path else path)
    if (kind := _format(name)) not in FORMATS:
        known = f"{', '.join(FORMATS)}, all but parquet also with {', '.join(PACKINGS)}"
        raise UrlTableError(
            f"{what} {path} has an unknown format {''.join(name.suffixes[-2:])!r}; "
            f"known formats: {known}"
        )
    if size == 0:
        raise UrlTableError(f"{what} {path} is empty")
    return TableFile(filesystem, path, kind, PACKINGS.get(name.suffix.lower()), what)
