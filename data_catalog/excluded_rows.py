"""Rows of a shard that are excluded on purpose, each with its reason: NNNNN.dropped.parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import replacing

SCHEMA = pa.schema(
    [("key", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("reason", pa.string())]
)


def dropped_file(folder: Path, name: str) -> Path:
    """The path of the file that lists the dropped rows of a shard; it exists only if there are
    any."""
    return folder / f"{name}.dropped.parquet"


def write_dropped(folder: Path, name: str, rows: Sequence[dict[str, str]]) -> Path:
    """Write the dropped rows of a shard. Equal rows give equal bytes."""
    path = dropped_file(folder, name)
    with replacing(path) as unfinished:
        parquet.write_table(
            pa.Table.from_pylist(list(rows), SCHEMA), unfinished, compression="zstd"
        )
    return path


def read_dropped(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """The dropped rows of a shard: key, url, caption, reason."""
    path = ensure_local(dropped_file(folder, name))
    if path.exists():
        yield from parquet.read_table(path).to_pylist()


def dropped_keys(folder: Path, name: str) -> frozenset[str]:
    """Keys of the dropped rows of a shard."""
    return frozenset(row["key"] for row in read_dropped(folder, name))
