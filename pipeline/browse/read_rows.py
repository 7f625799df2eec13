"""Reading of every row that the download and the encoding know, from their Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.excluded_rows import dropped_file
from data_catalog.image_sources.source import origin_of
from data_catalog.input_rows import open_rows
from data_catalog.storage.cached_files import ensure_local, exists_anywhere
from data_catalog.storage.receipts import Shard, finished_shards
from data_catalog.url_table.packed_columns import MORE_CAPTIONS
from pipeline.browse.rows import SCHEMA
from pipeline.config.download import DownloadConfig
from pipeline.stages.freshness import StageStatus

_COLUMNS = (
    *("key", "url", "caption", "split", "row"),
    *("status", "error_message", "original_width", "original_height"),
)
_THREADS = 4  # Python holds more of them up than the disk does
_BATCH = 10_000  # rejected rows at a time
# Nearly every URL: scheme, user, host. The others need a closer look.
_HOST = r"^(?i:https?)://(?:[^/?#@]*@)?(?P<host>[A-Za-z0-9._-]+)(?:[:/?#]|$)"
_NO_SOURCE = "(none)"


@dataclass(frozen=True, slots=True)
class FinishedShards:
    """The finished shards of a stage, whether or not the stage is."""

    folder: Path
    shards: Mapping[str, Shard]

    @classmethod
    def of(cls, status: StageStatus) -> FinishedShards | None:
        """The shards of a stage, or None if it has none."""
        if status.folder is None or not status.folder.is_dir():
            return None
        manifest = status.manifest
        shards = manifest.shards if manifest else finished_shards(status.folder)
        return cls(status.folder, {shard.name: shard for shard in shards}) if shards else None


def read_finished(images: FinishedShards, encodings: FinishedShards | None) -> pa.Table:
    """All rows of the image shards, by key, with the schema of BrowsedRows. Of a row that was
    tried again only the last try counts."""
    with ThreadPoolExecutor(_THREADS) as threads:
        read = partial(_read_shard, images, encodings)
        table = pa.concat_tables(threads.map(read, sorted(images.shards)))
    return _last_tries(table)


def _last_tries(table: pa.Table) -> pa.Table:
    """Rows without the earlier tries of rows that a later shard holds again."""
    numbers = table["row"].to_numpy()
    _, last = np.unique(numbers[::-1], return_index=True)
    if len(last) == len(numbers):
        return table
    is_last = np.zeros(len(numbers), bool)
    is_last[len(numbers) - 1 - last] = True
    return table.filter(pa.array(is_last))


def read_rejected(config: DownloadConfig) -> Iterator[pa.Table]:
    """The rows that the checks of the input reject, some at a time, with the schema of
    BrowsedRows. Reads the whole input. Raises UrlTableError if it cannot be read."""
    rejected = open_rows(config.rows).rejected_rows()
    while batch := list(islice(rejected, _BATCH)):
        yield _table(
            {
                "key": [""] * len(batch),
                "url": [row.url for row in batch],
                "caption": [row.caption for row in batch],
                "table_split": [""] * len(batch),
                "row": [row.row for row in batch],
                "clip_score": [float("nan")] * len(batch),
                "reason": [f"table: {row.reason}" for row in batch],
                "source": sources_of(pa.chunked_array([[row.url for row in batch]], pa.string())),
                "shard": [""] * len(batch),
                "is_image": [False] * len(batch),
            }
        )


def _read_shard(images: FinishedShards, encodings: FinishedShards | None, name: str) -> pa.Table:
    rows = read_columns(images.folder, name, (*_COLUMNS, MORE_CAPTIONS))
    succeeded = pc.equal(rows["status"], "success")
    failure = pc.binary_join_element_wise(
        "download", pc.fill_null(rows["error_message"], "unknown"), ": "
    )
    reasons = pc.if_else(succeeded, "", failure).to_pylist()
    keys = rows["key"].to_pylist()
    left_out = _left_out("download", images.folder, name)
    scores = None
    if encodings and name in encodings.shards:
        left_out |= _left_out("encode", encodings.folder, name)
        encoded = read_columns(encodings.folder, name, ("key", "clip_score"))
        scores = encoded["clip_score"].take(pc.index_in(rows["key"], encoded["key"]))
    return _table(
        {
            "key": rows["key"],
            "url": rows["url"],
            "caption": rows["caption"],
            "table_split": rows["split"],
            "row": rows["row"],
            "original_width": rows["original_width"],
            "original_height": rows["original_height"],
            "more_captions": _further_captions(rows),
            "clip_score": scores,
            "reason": [left_out.get(key, why) for key, why in zip(keys, reasons, strict=True)],
            "source": sources_of(rows["url"]),
            "shard": [name] * len(keys),
            "is_image": succeeded,
        }
    )


def _table(columns: Mapping[str, Sequence[object] | pa.ChunkedArray | None]) -> pa.Table:
    """A table of SCHEMA. Missing numbers are 0, or NaN as scores; missing texts are ""."""
    size = len(columns["key"] or ())
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name)
        if values is None:
            column = pa.chunked_array([pa.nulls(size, field.type)])
        elif isinstance(values, pa.ChunkedArray):
            column = values.cast(field.type)
        else:
            column = pa.chunked_array([pa.array(values, field.type)])
        arrays.append(_filled(column, field.type))
    return pa.table(arrays, schema=SCHEMA)


def _filled(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not column.null_count or pa.types.is_list(kind):
        return column
    if pa.types.is_floating(kind):
        return pc.fill_null(column, float("nan"))
    return pc.fill_null(column, 0 if pa.types.is_integer(kind) else "")


def _left_out(stage: str, folder: Path, shard: str) -> dict[str, str]:
    """Key -> reason, of the rows that a stage left out of a shard on purpose."""
    path = dropped_file(folder, shard)
    if not exists_anywhere(path):
        return {}
    rows = read_columns(folder, path.stem, ("key", "reason"))
    reasons = (f"{stage}: {reason}" for reason in rows["reason"].to_pylist())
    return dict(zip(rows["key"].to_pylist(), reasons, strict=True))


def _further_captions(rows: pa.Table) -> list[list[str | None] | None] | None:
    if MORE_CAPTIONS not in rows.column_names:
        return None
    return [text and json.loads(text) for text in rows[MORE_CAPTIONS].to_pylist()]


def read_columns(folder: Path, shard: str, columns: Sequence[str]) -> pa.Table:
    """Those of the columns that the Parquet file of a shard has."""
    with parquet.ParquetFile(ensure_local(folder / f"{shard}.parquet")) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        return file.read(columns=present, use_threads=False)


def sources_of(urls: pa.ChunkedArray) -> list[str]:
    """The host of each URL, or the tar, Parquet file or folder that an address names."""
    hosts = pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, _HOST), "host")).to_pylist()
    return [
        host if host is not None else origin_of(url or "") or _NO_SOURCE
        for host, url in zip(hosts, urls.to_pylist(), strict=True)
    ]
