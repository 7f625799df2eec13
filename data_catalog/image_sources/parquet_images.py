"""Images in Parquet files: a column of bytes, or of structs {bytes, path} as the Hugging Face
library `datasets` writes them. An address is `parquet:train-00000.parquet!/17`, with the number of
the row in its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.image_sources.file_tree import (
    FileTree,
    FoundFile,
    ImageSourceError,
    NoContent,
    quoted,
    unquoted,
)
from data_catalog.url_table.files import TableFile, UrlTableError
from data_catalog.url_table.formats import check_columns, read_batches, rows_by_footer
from data_catalog.url_table.rows import (
    DAMAGED_FILE,
    BadRow,
    RowBatch,
    TableColumns,
    as_batch,
    text_array,
)

SCHEME = "parquet:"
_SEPARATOR = "!/"
_ROWS = 16  # images in memory at a time
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class ParquetImages:
    """The rows of all Parquet files of a source."""

    tree: FileTree
    image_column: str

    def batches(self, columns: TableColumns) -> Iterator[RowBatch]:
        """The rows of each file, numbered from 0. Where a file is damaged, a bad row says so and
        the next file follows. Raises UrlTableError if a remote file cannot be read."""
        for file in self.files:
            try:
                yield from self._rows(file.name, columns)
            except UrlTableError as error:
                if not self.tree.is_local:
                    raise
                empty = {role: text_array([]) for role in columns.names}
                yield as_batch(empty, [], [BadRow(0, str(error), DAMAGED_FILE)])

    def check(self, columns: TableColumns) -> None:
        """Raise UrlTableError if a file lacks a column or images, or none can be read."""
        damages = list[UrlTableError]()
        for file in self.files:
            table = self._table(file.name)
            try:
                schema = self._schema(file.name)
            except UrlTableError as error:
                damages.append(error)
                continue
            check_columns(table, replace(columns, url=columns.caption))
            if self.image_column not in image_columns(schema):
                raise ImageSourceError(
                    f"{table.path} has no images in a column {self.image_column!r}; columns of "
                    f"bytes: {', '.join(image_columns(schema)) or 'none'}; set "
                    "download.image_column"
                )
        if len(damages) == len(self.files):
            raise damages[0]

    def image_columns(self) -> list[str]:
        """The columns of bytes of the first file that can be read."""
        for file in self.files:
            with suppress(UrlTableError):
                return image_columns(self._schema(file.name))
        return []

    def columns(self) -> list[str]:
        """The columns of the first file that can be read which hold text."""
        for file in self.files:
            with suppress(UrlTableError):
                return text_columns(self._schema(file.name))
        return []

    def rows_about(self) -> int:
        """The number of rows, from the footers."""
        count = 0
        for file in self.files:
            with suppress(UrlTableError):
                count += rows_by_footer(self._table(file.name)) or 0
        return count

    def digest(self, urls: Sequence[str] | None = None) -> str:
        """SHA-256 of the names, sizes and times of the files."""
        return self.tree.digest(
            map(file_of, urls) if urls is not None else [file.name for file in self.files]
        )

    @property
    def files(self) -> tuple[FoundFile, ...]:
        """The Parquet files, sorted by name."""
        return tuple(file for file in self.tree.files if file.suffix == ".parquet")

    def bodies(self, urls: Sequence[str], most_bytes: int) -> Iterator[bytes | Exception]:
        """The content of these images in this order, which must be that of the rows."""
        for file, addresses in groupby(map(_parsed, urls), key=lambda address: address.file):
            rows = [address.row for address in addresses]
            count = 0
            try:
                for content in self._contents(file, rows, most_bytes):
                    yield content
                    count += 1
                why: Exception = NoContent("row is gone from its file")
            except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
                why = self._why_not(error)
            yield from [why] * (len(rows) - count)

    def _contents(self, file: str, rows: list[int], most_bytes: int) -> Iterator[bytes | Exception]:
        """The images of these rows of one file, which must ascend."""
        with self.tree.open(file) as stream:
            opened = parquet.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False)
            first, waiting = 0, np.asarray(rows)
            for group in range(opened.num_row_groups):
                end = first + opened.metadata.row_group(group).num_rows
                if first <= waiting[-1] and np.any((waiting >= first) & (waiting < end)):
                    yield from self._of_group(opened, group, waiting - first, most_bytes)
                first = end

    def _of_group(
        self, file: parquet.ParquetFile, group: int, rows: np.ndarray, most_bytes: int
    ) -> Iterator[bytes | Exception]:
        first = 0
        for batch in file.iter_batches(
            _ROWS, row_groups=[group], columns=[self.image_column], use_threads=False
        ):
            here = rows[(rows >= first) & (rows < first + batch.num_rows)] - first
            if len(here):
                yield from contents_of(batch.column(0).take(pa.array(here)), most_bytes)
            first += batch.num_rows
            if first > rows[-1]:
                return

    def _rows(self, name: str, columns: TableColumns) -> Iterator[RowBatch]:
        # Their addresses come from the numbers; any column that exists will do for them.
        for batch in read_batches(self._table(name), replace(columns, url=columns.caption)):
            prefix = f"{SCHEME}{quoted(name)}{_SEPARATOR}"
            urls = [f"{prefix}{row}" for row in batch.rows["row"].to_pylist()]
            yield RowBatch(batch.rows.set_column(0, "url", pa.array(urls, pa.string())), batch.bad)

    def _why_not(self, error: Exception) -> Exception:
        """What to report of rows that cannot be read. pyarrow raises OSError without a number for
        damage."""
        if isinstance(error, OSError) and (error.errno or not self.tree.is_local):
            return self.tree.why_not(error)
        return NoContent("damaged Parquet file")

    def _schema(self, name: str) -> pa.Schema:
        with self._table(name).open() as stream:
            return parquet.read_schema(stream)

    def _table(self, name: str) -> TableFile:
        return TableFile(
            self.tree.filesystem, self.tree.path(name), ".parquet", None, "Parquet file"
        )


def contents_of(images: pa.Array, most_bytes: int) -> Iterator[bytes | Exception]:
    """The bytes of a column of images, or why there are none."""
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    for image in images:
        if not image.is_valid:
            yield NoContent("row without image bytes")
        elif len(content := image.as_buffer()) > most_bytes:
            yield NoContent("file too large")
        else:
            yield content.to_pybytes()


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that can hold image bytes."""
    return [column.name for column in schema if _holds_bytes(column.type)]


def text_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold text or lists of it."""
    kinds = {column.name: column.type for column in schema}
    inner = {name: getattr(kind, "value_type", kind) for name, kind in kinds.items()}
    return [
        name
        for name, kind in inner.items()
        if pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ]


def file_of(url: str) -> str:
    """The name of the file that an address is in."""
    return _parsed(url).file


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@dataclass(frozen=True, slots=True)
class _RowAddress:
    file: str
    row: int


def _parsed(url: str) -> _RowAddress:
    file, _, row = url.removeprefix(SCHEME).partition(_SEPARATOR)
    return _RowAddress(unquoted(file), int(row))
