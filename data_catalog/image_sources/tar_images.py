"""Images in webdataset tars: 000123.jpg with 000123.txt and 000123.json, in one or many tar files.

An address is `tar:00007.tar!/000123.jpg`, with the path of the file from the root of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from typing import IO

from data_catalog.image_formats import is_image
from data_catalog.image_sources.file_tree import (
    FileTree,
    FoundFile,
    ImageSourceError,
    NoContent,
    quoted,
    unquoted,
)
from data_catalog.image_sources.sample_columns import (
    FIRST_SAMPLES,
    MOST_TEXT_BYTES,
    Sample,
    SampleRow,
    columns_of,
    sample_batches,
)
from data_catalog.tar_samples import TarError, TarSample, split_name, tar_samples
from data_catalog.url_table.files import cause_of
from data_catalog.url_table.rows import (
    DAMAGED_FILE,
    BadRow,
    RowBatch,
    TableColumns,
)

SCHEME = "tar:"
SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_SEPARATOR = "!/"


@dataclass(frozen=True, slots=True)
class TarImages:
    """The tars of a source. One sample is one row, in the order of the files and their members."""

    tree: FileTree
    image_column: str
    """The suffix of the image among several of one sample; without such a member, the first."""

    def batches(self, columns: TableColumns) -> Iterator[RowBatch]:
        """The rows, numbered from 0 across the files. Where a file is damaged, a bad row says so
        and the next file follows. Raises ImageSourceError if a remote file cannot be read."""
        yield from sample_batches(self._all_rows(), columns)

    def check(self, columns: TableColumns) -> None:
        """Raise ImageSourceError if no tar has a sample that can be read."""
        del columns  # a sample need not have them all
        why = ""
        for file in self.files:
            try:
                with self.tree.open(file.name) as stream:
                    if next(self._rows(file.name, stream), None):
                        return
                why = why or f"{self.tree.path(file.name)} is a tar without files"
            except (TarError, OSError) as error:
                path = self.tree.path(file.name)
                why = why or f"{path} cannot be read as a tar: {cause_of(error)}"
        others = f", nor can its {len(self.files) - 1} others" if len(self.files) > 1 else ""
        raise ImageSourceError(f"{why}{others}; get it again")

    def image_columns(self) -> list[str]:
        """None: an image is a file of its own."""
        return []

    def columns(self) -> list[str]:
        """The columns that have texts in the first samples of the first tar that can be read."""
        for file in self.files:
            with suppress(TarError, OSError), self.tree.open(file.name) as stream:
                rows = list(islice(self._rows(file.name, stream), FIRST_SAMPLES))
                return columns_of(row.sample for row in rows)
        return []

    def rows_about(self) -> int:
        """An estimate from the number of rows in the first whole tar and the sizes of all."""
        for file in self.files:
            with suppress(TarError, OSError), self.tree.open(file.name) as stream:
                rows = sum(1 for _ in self._rows(file.name, stream))
                return round(rows * sum(f.size for f in self.files) / max(file.size, 1))
        return 0

    def digest(self, urls: Sequence[str] | None = None) -> str:
        """SHA-256 of the names, sizes and times of the tars."""
        return self.tree.digest(
            map(file_of, urls) if urls is not None else [file.name for file in self.files]
        )

    @property
    def files(self) -> tuple[FoundFile, ...]:
        """The tars, sorted by name."""
        return tuple(file for file in self.tree.files if file.name.lower().endswith(SUFFIXES))

    def bodies(self, urls: Sequence[str], most_bytes: int) -> Iterator[bytes | Exception]:
        """The content of these images in this order, which must be that of the rows, or why there
        is none. Each tar is read once, up to the last of its images."""
        for file, addresses in groupby(map(_parsed, urls), key=lambda address: address.file):
            yield from self._contents(file, list(addresses), most_bytes)

    def _contents(
        self, file: str, addresses: list[_MemberAddress], most_bytes: int
    ) -> Iterator[bytes | Exception]:
        """The contents of images of one tar."""
        left, why = iter(addresses), Exception()
        address = next(left, None)
        names = {(address.key, address.suffix) for address in addresses}
        try:
            with self.tree.open(file) as stream:
                for sample in tar_samples(
                    stream, most_bytes, lambda name: split_name(name) in names
                ):
                    if address is None:
                        return
                    if sample.key == address.key and address.suffix in sample.members:
                        content = sample.members[address.suffix]
                        yield NoContent("file too large") if content is None else content
                        address = next(left, None)
            why = NoContent("image is gone from its tar")
        except TarError:
            why = NoContent("damaged tar")
        except OSError as error:
            why = self.tree.why_not(error)
        while address is not None:
            yield why
            address = next(left, None)

    def _all_rows(self) -> Iterator[SampleRow | BadRow]:
        for file in self.files:
            try:
                with self.tree.open(file.name) as stream:
                    yield from self._rows(file.name, stream)
            except (TarError, OSError) as error:
                if isinstance(error, OSError) and not self.tree.is_local:
                    path = self.tree.path(file.name)
                    raise ImageSourceError(f"{path} cannot be read: {cause_of(error)}") from error
                yield BadRow(0, f"{file.name} is damaged: {error}", DAMAGED_FILE)

    def _rows(self, file: str, stream: IO[bytes]) -> Iterator[SampleRow]:
        def is_text(name: str) -> bool:
            return not is_image(name.rpartition(".")[2])

        for sample in tar_samples(stream, MOST_TEXT_BYTES, is_text):
            yield self._row(file, sample)

    def _row(self, file: str, sample: TarSample) -> SampleRow:
        members = sample.members
        images = [suffix for suffix in members if is_image(suffix.rpartition(".")[2])]
        # A plain suffix like jpg comes before one like mask.png.
        images.sort(key=lambda suffix: (suffix != self.image_column, "." in suffix))
        name = f"{sample.key}.{images[0]}" if images else sample.key
        url = f"{SCHEME}{quoted(file)}{_SEPARATOR}{quoted(name)}" if images else None
        return SampleRow(url, Sample(name, members.get))


@dataclass(frozen=True, slots=True)
class _MemberAddress:
    file: str
    key: str
    suffix: str


def file_of(url: str) -> str:
    """The name of the tar that an address is in."""
    return _parsed(url).file


def _parsed(url: str) -> _MemberAddress:
    file, _, member = url.removeprefix(SCHEME).partition(_SEPARATOR)
    return _MemberAddress(unquoted(file), *split_name(unquoted(member)))
