"""Form 3 of the data: encoded shards. NNNNN.parquet for people and NNNNN.npz for the GPU: the same rows
in the same order. Readable with pandas and numpy alone. Knows nothing of torch.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from data_catalog.stored import local

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("clip_score", pa.float32()),
        ("quantization_rmse", pa.float32()),  # of scaled latents, whose spread is about 1
        ("clipped_fraction", pa.float32()),
    ]
)
# The last column where the table has several caption columns: one entry for each further one, null where it has none.
MORE_CAPTIONS = pa.field("more_captions", pa.list_(pa.string()))


class EncodingsError(ValueError):
    """An encoded shard that is damaged or of another shape than expected."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class EncodedArrays:
    """The numbers of one shard."""

    latents: NDArray[np.uint8] | NDArray[np.float16]  # [n, c, z, z]
    text: NDArray[np.float16]  # [n, d], or [m, d] where pairs have several captions
    key: NDArray[np.bytes_]  # [n], ASCII
    # Where the table has several caption columns: captions of pair i are rows text_start[i]:text_start[i+1] of text,
    # the main one first.
    text_start: NDArray[np.int64] | None = None  # [n + 1]
    text_column: NDArray[np.uint8] | None = None  # [m], number of the caption column: 0 is the main one
    # Where captions are encoded by token: those of row j of text are rows token_start[j]:token_start[j+1] of tokens.
    tokens: NDArray[np.float16] | None = None  # [k, t], no padding
    token_start: NDArray[np.int64] | None = None  # [m + 1]

    @property
    def by_name(self) -> dict[str, NDArray[Any]]:
        """Those that are there."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in named if array is not None}


def write_encoded_shard(folder: Path, name: str, rows: dict[str, list[Any]], arrays: EncodedArrays) -> None:
    """Write both files of a shard, each by rename. Equal rows give equal bytes."""
    table = pa.table(rows, schema=pa.schema([*SCHEMA, MORE_CAPTIONS]) if MORE_CAPTIONS.name in rows else SCHEMA)
    main = arrays.text if arrays.text_start is None else arrays.text_start[:-1]
    if not table.num_rows == len(arrays.latents) == len(main) == len(arrays.key):
        raise AssertionError("parquet and npz must have the same rows")
    _write_table(table, folder / f"{name}.parquet")
    unfinished = folder / f"{name}.npz.partial"
    with unfinished.open("wb") as file:
        np.savez(file, **arrays.by_name)  # type: ignore[arg-type]  # it takes them for its own options
    os.replace(unfinished, folder / f"{name}.npz")


_ARRAYS = [field.name for field in fields(EncodedArrays)]
_ALWAYS = ("latents", "text", "key")


def read_arrays(path: Path) -> EncodedArrays:
    """Memory-map the arrays of an NNNNN.npz: nothing is read before it is used."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        there = [name for name in _ARRAYS if name in members or name in _ALWAYS]
        arrays = {name: _map_member(path, members[name]) for name in there}
    except (zipfile.BadZipFile, KeyError, struct.error, ValueError) as error:
        raise EncodingsError(f"{path} is not an encoded shard: {error}") from error
    return EncodedArrays(**arrays)


def unmap_pages(arrays: EncodedArrays) -> None:
    """Let go of what was read of memory-mapped arrays: it stays in the system's cache, but no longer counts as this
    process's memory, which would else grow to the size of the files."""
    for array in (arrays.latents, arrays.text, arrays.tokens):
        if array is not None and isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def read_rows(folder: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a shard as people read them."""
    return parquet.read_table(local(folder / f"{name}.parquet"), columns=columns)


def _write_table(table: pa.Table, path: Path) -> None:
    unfinished = path.with_name(path.name + ".partial")
    parquet.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)


def _map_member(path: Path, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Map one stored (not deflated) .npy of a zip file."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    with path.open("rb") as file:
        # The local header repeats name and extra field, whose lengths are at 26 and 28 (APPNOTE 4.3.7).
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + 30 + name_length + extra_length)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        offset = file.tell()
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
