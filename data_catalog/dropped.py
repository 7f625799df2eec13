"""NNNNN.dropped.parquet: rows of a shard that a stage leaves out, each with its reason. Knows no reasons."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SCHEMA = pa.schema([("key", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("reason", pa.string())])


def dropped_file(folder: Path, name: str) -> Path:
    """Where the dropped rows of a shard are listed, if there are any."""
    return folder / f"{name}.dropped.parquet"


def write_dropped(folder: Path, name: str, rows: pa.Table) -> Path:
    """List the dropped rows of a shard, by rename. Equal rows give equal bytes."""
    path = dropped_file(folder, name)
    unfinished = path.with_name(path.name + ".partial")
    parquet.write_table(rows.cast(SCHEMA), unfinished, compression="zstd")
    os.replace(unfinished, path)
    return path


def dropped_keys(folder: Path, name: str) -> frozenset[str]:
    """Keys of the dropped rows of a shard."""
    path = dropped_file(folder, name)
    return frozenset(parquet.read_table(path, columns=["key"])["key"].to_pylist()) if path.exists() else frozenset()
