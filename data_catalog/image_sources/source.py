"""Image sources: what is at a path, its rows, and the content of images by their addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from pyarrow import ArrowException, parquet

from data_catalog.image_formats import is_image
from data_catalog.image_sources import folder_images, hub_images, parquet_images, tar_images
from data_catalog.image_sources.file_tree import (
    FileTree,
    FoundFile,
    ImageSourceError,
    NoImages,
)
from data_catalog.image_sources.find_tree import find_tree
from data_catalog.image_sources.folder_images import FolderImages
from data_catalog.image_sources.hub_images import HubImages, is_hub_name, is_saved
from data_catalog.image_sources.parquet_images import ParquetImages
from data_catalog.image_sources.tar_images import TarImages
from data_catalog.url_table.files import FORMATS
from data_catalog.url_table.rows import RowBatch, TableColumns

NAMED_BY_FILES = (FolderImages, TarImages)  # whose images are files with names
_MOST_KINDS = 5  # of files in an error


@dataclass(frozen=True, slots=True)
class ImagesAt:
    """Where images are and how to read them, in a user's words."""

    source: str
    """A folder, file, pattern or URL."""
    image_column: str = "image"
    """The column of bytes in Parquet files and data sets, or the suffix in tars."""
    dataset_config: str | None = None
    dataset_split: str = "train"


class ImageSource(Protocol):
    """Images with captions. Their addresses stand in the place of URLs."""

    def batches(self, columns: TableColumns) -> Iterator[RowBatch]:
        """All rows, always in the same order. Numbers start anew with each file or batch."""

    def check(self, columns: TableColumns) -> None:
        """Raise UrlTableError if the images, or these columns beside them, cannot be read."""

    def image_columns(self) -> list[str]:
        """The columns that hold images, where they have names."""

    def columns(self) -> list[str]:
        """The columns that have texts in the first rows."""

    def rows_about(self) -> int:
        """The number of rows, or an estimate where only reading them all would tell it."""

    def digest(self, urls: Sequence[str] | None = None) -> str:
        """SHA-256 that changes when the files of these addresses change, or any file does. The
        place of the source does not count."""

    def bodies(self, urls: Sequence[str], most_bytes: int) -> Iterator[bytes | Exception]:
        """The content of these images in this order, which must be that of the rows, or why there
        is none: a NoContent, or an error of a remote file system."""


def open_images(at: ImagesAt) -> ImageSource:
    """Find out what is at a source. Raises ImageSourceError if it holds no images, or several kinds
    of them."""
    if is_hub_name(at.source) or is_saved(at.source):
        return _hub(at)
    tree = find_tree(at.source)
    first = {
        "tars": next((f for f in tree.files if f.name.lower().endswith(tar_images.SUFFIXES)), None),
        "Parquet files with images": _first_with_images(tree),
        "images": next((f for f in tree.files if is_image(f.suffix.removeprefix("."))), None),
    }
    examples = {kind: file for kind, file in first.items() if file}
    match [*examples]:
        case ["tars"]:
            return TarImages(tree, at.image_column)
        case ["Parquet files with images"]:
            return ParquetImages(tree, at.image_column)
        case ["images"]:
            return FolderImages(tree)
        case []:
            raise NoImages(f"there are no images at {at.source}: {_contents(tree)}")
        case [kind, *_] as kinds:
            name = PurePosixPath(examples[kind].name)
            pattern = tree.path(str(name.with_name(f"*{name.suffix}")))
            raise ImageSourceError(
                f"{at.source} holds {' and '.join(kinds)}; say which of them to use, as a folder "
                f"or a pattern such as {pattern}"
            )
    raise AssertionError


def image_reader(at: ImagesAt, address: str) -> ImageSource:
    """The source of an image with this address, without listing the files."""
    kinds: dict[str, Callable[[], ImageSource]] = {
        tar_images.SCHEME: lambda: TarImages(find_tree(at.source), at.image_column),
        parquet_images.SCHEME: lambda: ParquetImages(find_tree(at.source), at.image_column),
        folder_images.SCHEME: lambda: FolderImages(find_tree(at.source)),
        hub_images.SCHEME: lambda: _hub(at),
    }
    return kinds[f"{address.partition(':')[0]}:"]()


def file_of(address: str) -> str:
    """The tar, Parquet file or folder that an image is in, or "" for a row of a data set."""
    match f"{address.partition(':')[0]}:":
        case tar_images.SCHEME:
            return tar_images.file_of(address)
        case parquet_images.SCHEME:
            return parquet_images.file_of(address)
        case folder_images.SCHEME:
            return folder_images.name_of(address).rpartition("/")[0]
    return ""


def origin_of(url: str) -> str:
    """The host of a URL, or the tar, Parquet file or folder of an address; "" if it has none."""
    try:
        return urlsplit(url).hostname or file_of(url)
    except ValueError:  # a URL that cannot be parsed
        return ""


def _hub(at: ImagesAt) -> HubImages:
    return HubImages(at.source, at.image_column, at.dataset_config, at.dataset_split)


def _first_with_images(tree: FileTree) -> FoundFile | None:
    """The first Parquet file that can be read, if it has a column of bytes. img2dataset writes a
    Parquet file without images beside each tar. Raises ImageSourceError if none can be read."""
    why = None
    for file in tree.files:
        if file.suffix == ".parquet":
            try:
                with tree.open(file.name) as stream:
                    schema = parquet.read_schema(stream)
                return file if parquet_images.image_columns(schema) else None
            except (OSError, ArrowException) as error:
                why = why or f"{tree.path(file.name)} cannot be read as Parquet: {error}"
    if why:
        raise ImageSourceError(why)
    return None


def _contents(tree: FileTree) -> str:
    """What is there instead of images, and what to do about it."""
    kinds = Counter(file.suffix or "without suffix" for file in tree.files)
    if not kinds:
        return "it has no files"
    listed = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(_MOST_KINDS))
    if kinds.keys() & {".zip", ".7z", ".rar"}:
        return f"it has {listed}; unpack archives first"
    if kinds.keys() & {*FORMATS}:
        return (
            f"it has {listed}; a table of URLs belongs in download.urls, and one of file names "
            "beside its images as metadata.csv with a column file_name"
        )
    return f"it has {listed}"
