"""Images in a Hugging Face data set: by its name on the hub, or in a folder that
`Dataset.save_to_disk` wrote. An address is `dataset:17`, with the number of the row.

It needs the package `datasets`, which the extra of that name installs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.image_sources.file_tree import ImageSourceError, NoContent
from data_catalog.image_sources.parquet_images import contents_of, image_columns, text_columns
from data_catalog.storage.digests import digest_of
from data_catalog.url_table.parquet_rows import arrow_batches
from data_catalog.url_table.rows import RowBatch, TableColumns, find_columns

if TYPE_CHECKING:
    from datasets import Dataset

SCHEME = "dataset:"
HUB_PREFIX = "hf://datasets/"
_SAVED = ("state.json", "dataset_dict.json")  # in a folder that `save_to_disk` wrote
_ROWS = 16  # images in memory at a time


@dataclass(frozen=True)
class HubImages:
    """One split of a data set, or several joined with a plus sign, in their order."""

    source: str
    """A folder, or `hf://datasets/OWNER/NAME`, with `@REVISION` if another than the newest."""
    image_column: str
    config: str | None
    """The configuration ("subset") of the data set, where it has several."""
    split: str

    def batches(self, columns: TableColumns) -> Iterator[RowBatch]:
        """The rows, numbered from 0."""
        places, _missing = find_columns(columns, self.data.column_names)
        needed = sorted({place.column for role, place in places.items() if role != "url"})
        texts = self.data.select_columns(needed).with_format("arrow")
        # Their addresses come from the numbers; any column that exists will do for them.
        places["url"] = places["caption"]
        start = 0
        for table in texts.iter(batch_size=1000):
            named = _with_class_names(table, self.data.features)
            for part in named.combine_chunks().to_batches():
                for batch in arrow_batches(part, places, start):
                    urls = [f"{SCHEME}{row}" for row in batch.rows["row"].to_pylist()]
                    yield RowBatch(batch.rows.set_column(0, "url", pa.array(urls, pa.string())))
                    start += batch.size

    def check(self, columns: TableColumns) -> None:
        """Raise ImageSourceError if the data set lacks a column or images."""
        names = self.data.column_names
        _places, missing = find_columns(replace(columns, url=self.image_column), names)
        if missing:
            raise ImageSourceError(
                f"the data set at {self.source} has no column "
                f"{', '.join(map(repr, missing))}; its columns are {', '.join(names)}; set "
                "download.image_column, caption_column, more_caption_columns, split_column or "
                "keep_columns"
            )
        if not self.data.num_rows:
            raise ImageSourceError(f"the split {self.split!r} of {self.source} has no rows")
        kind = self.data.features[self.image_column]
        if self.image_column not in image_columns(self.data.features.arrow_schema):
            raise ImageSourceError(
                f"the column {self.image_column!r} of {self.source} holds {kind}, no images; set "
                "download.image_column"
            )

    def image_columns(self) -> list[str]:
        """The columns of images, or else of bytes."""
        features = self.data.features
        images = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
        return images or image_columns(features.arrow_schema)

    def columns(self) -> list[str]:
        """The columns that can be text, with those of classes."""
        from datasets import ClassLabel

        features = self.data.features
        classes = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
        return [*text_columns(features.arrow_schema), *classes]

    def rows_about(self) -> int:
        """The number of rows."""
        return int(self.data.num_rows)

    def digest(self, urls: Sequence[str] | None = None) -> str:
        """SHA-256 of the fingerprint that `datasets` gives the data set."""
        del urls  # it has one fingerprint for all rows
        return digest_of([self.data._fingerprint])

    def bodies(self, urls: Sequence[str], most_bytes: int) -> Iterator[bytes | Exception]:
        """The content of these images, or why there is none."""
        data = self.data.select_columns([self.image_column])
        if type(data.features[self.image_column]).__name__ == "Image":
            from datasets import Image

            data = data.cast_column(self.image_column, Image(decode=False))
        data = data.with_format("arrow")
        rows = [int(url.removeprefix(SCHEME)) for url in urls]
        for start in range(0, len(rows), _ROWS):
            images = data[rows[start : start + _ROWS]].column(0).combine_chunks()
            yield from self._contents(images, most_bytes)

    def _contents(self, images: pa.Array, most_bytes: int) -> Iterator[bytes | Exception]:
        """The bytes of a column of images; where it has none, those of the file it names."""
        paths = images.field("path").to_pylist() if _has_paths(images.type) else []
        for number, content in enumerate(contents_of(images, most_bytes)):
            path = paths[number] if paths else None
            if path and isinstance(content, NoContent) and self._may_read(Path(path)):
                yield _content_of(Path(path), most_bytes)
            else:
                yield content

    def _may_read(self, path: Path) -> bool:
        """Whether a row may name this file: a data set of the hub only files that came with it."""
        import datasets
        from huggingface_hub.constants import HF_HUB_CACHE

        caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME, HF_HUB_CACHE)
        inside = any(path.resolve().is_relative_to(Path(cache).resolve()) for cache in caches)
        return path.is_file() and (inside or not self.source.startswith(HUB_PREFIX))

    @cached_property
    def data(self) -> Dataset:
        """The rows. Raises ImageSourceError if the data set cannot be loaded."""
        try:
            import datasets
        except ImportError as error:
            raise ImageSourceError(
                f"to read the data set {self.source}, install the package datasets: "
                "pip install datasets"
            ) from error
        for library in ("datasets", "huggingface_hub"):  # the error below says it all
            logging.getLogger(library).setLevel(logging.ERROR)
        datasets.disable_progress_bars()  # they would mix with ours
        try:
            return self._load(datasets)
        except Exception as error:  # files, servers and features of others can fail in any way
            raise ImageSourceError(
                f"the data set at {self.source} cannot be loaded: {_reason(error)}"
            ) from error

    def _load(self, datasets: Any) -> Dataset:
        if not self.source.startswith(HUB_PREFIX):
            saved = datasets.load_from_disk(self.source)
            if not isinstance(saved, dict) and self.split != "train":
                raise ValueError("it has no splits; remove download.dataset_split")
            return saved if not isinstance(saved, dict) else _split_of(datasets, saved, self.split)
        name, _, revision = self.source.removeprefix(HUB_PREFIX).partition("@")
        return datasets.load_dataset(
            name.strip("/"), self.config, split=self.split, revision=revision or None
        )


def is_hub_name(source: str) -> bool:
    """Whether a source is a data set on the hub, and not files in it."""
    name = source.removeprefix(HUB_PREFIX).strip("/")
    return source.startswith(HUB_PREFIX) and 0 < len(name.split("/")) <= 2 and "*" not in name


def is_saved(folder: str) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((Path(folder) / name).is_file() for name in _SAVED)


def _content_of(path: Path, most_bytes: int) -> bytes | Exception:
    """The content of a local file that a row names."""
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError:
        return NoContent("file cannot be read")
    return content if len(content) <= most_bytes else NoContent("file too large")


def _has_paths(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0


def _split_of(datasets: Any, saved: Any, split: str) -> Dataset:
    """One split of a saved data set, or several that a plus sign joins."""
    names = split.split("+")
    if missing := [name for name in names if name not in saved]:
        raise ValueError(
            f"it has no split {missing[0]!r}; its splits are {', '.join(saved)}; set "
            "download.dataset_split"
        )
    return datasets.concatenate_datasets([saved[name] for name in names])


def _with_class_names(table: pa.Table, features: Any) -> pa.Table:
    """A table with the names of classes in place of their numbers; class -1 is none."""
    from datasets import ClassLabel

    for place, column in enumerate(table.column_names):
        if isinstance(feature := features[column], ClassLabel):
            names, numbers = pa.array(feature.names, pa.string()), table[column]
            exists = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
            texts = names.take(pc.if_else(exists, numbers, None))
            table = table.set_column(place, column, texts)
    return table


def _reason(error: Exception) -> str:
    """What is wrong, and what to do if the hub wants a login."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    if first.startswith("Config name is missing"):
        return " ".join([first, *more[:1], "Set download.dataset_config."])
    if first.startswith("Unknown split"):
        return f"{first} Set download.dataset_split."
    kinds = {kind.__name__ for kind in type(error).__mro__}
    answer = getattr(getattr(error, "response", None), "status_code", None)
    if kinds & {"GatedRepoError", "DatasetNotFoundError"} or answer in (401, 403):
        return (
            f"{first} If it is private or needs an agreement, accept that on its page and log in "
            "with `hf auth login`, or set HF_TOKEN."
        )
    return first
