"""Images in a folder and the folders in it, with captions beside them or in metadata files.

Captions come from NAME.txt or NAME.json beside NAME.jpg, from a metadata.csv, .jsonl or .parquet
with a column `file_name` as the Hugging Face library `datasets` reads it, or from the names of
files and folders. An address is `file:cats/001.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath

import pyarrow as pa

from data_catalog.image_formats import is_image
from data_catalog.image_sources.file_tree import (
    FileTree,
    ImageSourceError,
    NoContent,
    quoted,
    unquoted,
)
from data_catalog.image_sources.sample_columns import (
    FILE_NAME,
    FIRST_SAMPLES,
    FOLDER_NAME,
    KEY,
    MOST_TEXT_BYTES,
    Sample,
    SampleRow,
    columns_of,
    key_of,
    sample_batches,
)
from data_catalog.url_table.files import TableFile, cause_of
from data_catalog.url_table.formats import check_columns, column_names, read_batches
from data_catalog.url_table.rows import RowBatch, TableColumns

SCHEME = "file:"
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder. With metadata files, their rows come first, in their order; then all
    other images, sorted by name."""

    tree: FileTree

    def batches(self, columns: TableColumns) -> Iterator[RowBatch]:
        """The rows, numbered from 0 in each file and in the rest."""
        listed = set[str]()
        for file in self._metadata_for(columns):
            folder = PurePosixPath(file.path.removeprefix(self.tree.root).lstrip("/")).parent
            with_keys = self._gives_keys(file, columns)
            for batch in read_batches(file, self._columns_in(file, columns)):
                names = [
                    str(folder / name) if name and name.strip() else None
                    for name in batch.rows["url"].to_pylist()
                ]
                listed.update(name for name in names if name)
                urls = pa.array([name and _address(name) for name in names], pa.string())
                rows = batch.rows.set_column(0, "url", urls)
                if with_keys:
                    keys = pa.array([name and key_of(name) for name in names], pa.string())
                    rows = rows.set_column(1, "caption", keys)
                yield RowBatch(rows, batch.bad)
        rest = (name for name in self.images if name not in listed)
        yield from sample_batches(
            (SampleRow(_address(name), self._sample(name)) for name in rest), columns
        )

    def check(self, columns: TableColumns) -> None:
        """Raise UrlTableError if a metadata file lacks a column or cannot be read."""
        for file in self._metadata_for(columns):
            check_columns(file, self._columns_in(file, columns))

    def image_columns(self) -> list[str]:
        """None: an image is a file of its own."""
        return []

    def columns(self) -> list[str]:
        """The columns of the first metadata file, or of the first samples."""
        if self.metadata:
            columns = TableColumns(url=FILE_NAME)
            names = [*column_names(self.metadata[0], columns), FILE_NAME, FOLDER_NAME]
            return list(dict.fromkeys(names))
        return columns_of(map(self._sample, self.images[:FIRST_SAMPLES]))

    def rows_about(self) -> int:
        """The number of images, which is about that of the rows of metadata files."""
        return len(self.images)

    def digest(self, urls: Sequence[str] | None = None) -> str:
        """SHA-256 of the names, sizes and times of the files."""
        if urls is None:
            return self.tree.digest()
        return self.tree.digest(name for url in urls if (name := name_of(url)) in self.tree.by_name)

    def bodies(self, urls: Sequence[str], most_bytes: int) -> Iterator[bytes | Exception]:
        """The content of these images, or why there is none."""
        for url in urls:
            yield self._body(name_of(url), most_bytes)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The names of all images, sorted."""
        return tuple(f.name for f in self.tree.files if is_image(f.suffix.removeprefix(".")))

    @cached_property
    def metadata(self) -> tuple[TableFile, ...]:
        """The metadata files, sorted by folder."""
        return tuple(
            TableFile(
                self.tree.filesystem, self.tree.path(file.name), file.suffix, None, "metadata file"
            )
            for file in self.tree.files
            if PurePosixPath(file.name).name in _METADATA and file.size
        )

    def _metadata_for(self, columns: TableColumns) -> tuple[TableFile, ...]:
        """The metadata files, unless the captions are names of files or folders."""
        return () if columns.caption in (FILE_NAME, FOLDER_NAME) else self.metadata

    def _gives_keys(self, file: TableFile, columns: TableColumns) -> bool:
        """Whether the captions are keys that a metadata file does not have: those of the names."""
        names = column_names(file, TableColumns(url=FILE_NAME))
        return columns.caption == KEY and KEY not in names

    def _columns_in(self, file: TableFile, columns: TableColumns) -> TableColumns:
        caption = FILE_NAME if self._gives_keys(file, columns) else columns.caption
        return replace(columns, url=FILE_NAME, caption=caption)

    def _sample(self, name: str) -> Sample:
        stem = name.removesuffix(PurePosixPath(name).suffix)

        def read(suffix: str) -> bytes | None:
            files = (self.tree.by_name.get(f"{stem}.{s}") for s in (suffix, suffix.upper()))
            file = next((file for file in files if file), None)
            return None if file is None or file.size > MOST_TEXT_BYTES else self._text(file.name)

        return Sample(name, read)

    def _text(self, name: str) -> bytes:
        """The content of a text file. Raises ValueError if a local file cannot be read, and
        ImageSourceError for a remote one."""
        try:
            with self.tree.open(name) as stream:
                return stream.read()
        except OSError as error:
            kind = ValueError if self.tree.is_local else ImageSourceError
            raise kind(f"{self.tree.path(name)} cannot be read: {cause_of(error)}") from error

    def _body(self, name: str, most_bytes: int) -> bytes | Exception:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            return NoContent("file outside the folder")
        if "\0" in name:
            return NoContent("no such file")
        try:
            with self.tree.open(name) as stream:
                content = stream.read(most_bytes + 1)
        except OSError as error:
            return self.tree.why_not(error)
        return content if len(content) <= most_bytes else NoContent("file too large")


def name_of(url: str) -> str:
    """The path of an image from the root of its source."""
    return unquoted(url.removeprefix(SCHEME))


def _address(name: str) -> str:
    return SCHEME + quoted(name)
