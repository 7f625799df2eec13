"""A first look at data: what is at a path, which columns hold captions, how large images are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_catalog.image_formats import open_image
from data_catalog.image_sources.file_tree import NoImages
from data_catalog.image_sources.folder_images import FolderImages
from data_catalog.image_sources.hub_images import HubImages
from data_catalog.image_sources.parquet_images import ParquetImages
from data_catalog.image_sources.sample_columns import FILE_NAME, FOLDER_NAME
from data_catalog.image_sources.source import ImagesAt, ImageSource, image_reader, open_images
from data_catalog.image_sources.tar_images import TarImages
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.formats import column_names, read_batches
from data_catalog.url_table.numbered_rows import find_files, first_batches
from data_catalog.url_table.rows import RowBatch, TableColumns
from data_catalog.url_table.table import count_rows

_ROWS = 256  # that are looked at
_MOST_BYTES = 64 << 20
# Names of columns in published data sets, the most telling first.
_URL_NAMES = ("url", "image_url", "img_url", "link", "image_link", "uri", "src")
_CAPTION_NAMES = (
    *("caption", "text", "prompt", "description", "sentence", "title", "alt", "alt_text"),
    *("captions", "texts", "txt", "label", "labels"),
)
_NOT_CLASSES = {"", "train", "test", "val", "valid", "validation", "images", "image", "data"}
_WHAT = {
    FolderImages: "a folder of images",
    TarImages: "webdataset tars",
    ParquetImages: "Parquet files with images",
    HubImages: "a Hugging Face data set",
}


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What is at a path, as its first rows show it."""

    place: str
    what: str
    """In words: "webdataset tars"."""
    rows: int
    """An estimate for tars."""
    columns: TableColumns
    image_column: str | None
    """The column of image bytes; None for a URL table, and where it has no name."""
    looked_at: int
    """The number of rows that were read."""
    captions: tuple[str, ...]
    """The captions of those that have one."""
    short_sides: tuple[int, ...]
    """Of their images, in pixels; empty for a URL table."""
    unreadable: int
    """Of their images, those that could not be opened."""

    @property
    def is_urls(self) -> bool:
        return self.what == "a table of URLs"

    def share_of_side(self, pixels: int) -> float:
        """The share of images whose short side has at least so many pixels."""
        return sum(side >= pixels for side in self.short_sides) / max(len(self.short_sides), 1)


def look_at(place: str) -> FirstLook:
    """Find out what is at a path or URL. Raises UrlTableError if nothing there can be used, or if
    no column has captions."""
    try:
        images = open_images(ImagesAt(place))
    except NoImages as no_images:
        try:
            return _look_at_table(place)
        except UrlTableError:
            raise no_images from None
    return _look_at_images(place, images)


def _look_at_images(place: str, images: ImageSource) -> FirstLook:
    image_column = next(iter(images.image_columns()), None)
    at = ImagesAt(place) if image_column is None else ImagesAt(place, image_column)

    def texts(column: str) -> list[str | None]:
        rows = _first_rows(place, images.batches(TableColumns(caption=column)))
        return rows["caption"].to_pylist()  # type: ignore[no-any-return]

    caption = _caption_column(place, images.columns(), texts)
    rows = _first_rows(place, images.batches(TableColumns(caption=caption)))
    urls = [url for url in rows["url"].to_pylist() if url is not None]
    sides = [_short_side(body) for body in _bodies(at, urls)]
    return FirstLook(
        place=place,
        what=_WHAT[type(images)],
        rows=images.rows_about(),
        columns=TableColumns(caption=caption),
        image_column=image_column,
        looked_at=rows.num_rows,
        captions=tuple(text for text in rows["caption"].to_pylist() if text),
        short_sides=tuple(side for side in sides if side),
        unreadable=sides.count(None),
    )


def _look_at_table(place: str) -> FirstLook:
    file = find_files(place)[0]
    names = column_names(file, TableColumns())

    def texts(column: str) -> list[str | None]:
        rows = _first_rows(place, read_batches(file, TableColumns(url=column, caption=column)))
        return rows["url"].to_pylist()  # type: ignore[no-any-return]

    urls = [name for name in _by_name(names, _URL_NAMES) if _hold_urls(texts(name))]
    if not urls:
        raise UrlTableError(f"{file.path} has no column of URLs")
    caption = _caption_column(place, [name for name in names if name != urls[0]], texts)
    columns = TableColumns(url=urls[0], caption=caption)
    captions = texts(caption)
    return FirstLook(
        place=place,
        what="a table of URLs",
        rows=count_rows(place, columns),
        columns=columns,
        image_column=None,
        looked_at=len(captions),
        captions=tuple(text for text in captions if text),
        short_sides=(),
        unreadable=0,
    )


def _caption_column(
    place: str, names: Sequence[str], texts: Callable[[str], list[str | None]]
) -> str:
    """The column with captions: one of a customary name, or the one with the longest texts, or the
    names of folders or files. Raises UrlTableError if there is none."""
    own = [name for name in names if name not in (FILE_NAME, FOLDER_NAME)]
    texts_of = {name: texts(name) for name in own}
    filled_of = {name: [text for text in texts_of[name] if text] for name in own}
    filled = [name for name in own if 2 * len(filled_of[name]) >= len(texts_of[name]) > 0]
    if named := [name for name in _CAPTION_NAMES if name in filled]:
        return named[0]
    spoken = [name for name in filled if _are_words(filled_of[name])]
    if spoken:
        return max(spoken, key=lambda name: sum(map(len, filled_of[name])) / len(filled_of[name]))
    if FOLDER_NAME in names and len({*texts(FOLDER_NAME)} - _NOT_CLASSES) > 1:
        return FOLDER_NAME
    if FILE_NAME in names and _are_words([text or "" for text in texts(FILE_NAME)]):
        return FILE_NAME
    raise UrlTableError(
        f"nothing at {place} looks like captions: columns with texts are {', '.join(names)}; write "
        "NAME.txt beside each image, or a metadata.csv with the columns file_name and caption"
    )


def _by_name(names: Sequence[str], preferred: Sequence[str]) -> list[str]:
    """The names, those that are preferred first."""
    places = {name: place for place, name in enumerate(preferred)}
    return sorted(names, key=lambda name: places.get(name.strip().lower(), len(places)))


def _hold_urls(texts: Sequence[str | None]) -> bool:
    urls = [text for text in texts if text and text.strip().lower().startswith("http")]
    return 2 * len(urls) >= len(texts) > 0


def _are_words(texts: Sequence[str]) -> bool:
    """Whether most texts are several words, and not paths, URLs or digests."""
    spoken = [text for text in texts if " " in text.strip() and any(map(str.isalpha, text))]
    return 2 * len(spoken) >= len(texts) > 0


def _first_rows(place: str, batches: Iterator[RowBatch]) -> pa.Table:
    first = [batch.rows for batch in first_batches(batches, _ROWS)]
    if not first:
        raise UrlTableError(f"there are no rows at {place}")
    return pa.Table.from_batches(first).slice(0, _ROWS)


def _bodies(at: ImagesAt, urls: list[str]) -> Iterator[bytes | Exception]:
    return image_reader(at, urls[0]).bodies(urls, _MOST_BYTES) if urls else iter(())


def _short_side(body: bytes | Exception) -> int | None:
    """The short side of an image in pixels, or None if it cannot be opened."""
    if isinstance(body, Exception):
        return None
    try:
        with open_image(body) as image:
            return min(image.size)
    except Exception:  # files of others can fail in any way
        return None
