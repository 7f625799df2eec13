"""Form 3 of the data: encoded shards. NNNNN.parquet for people and NNNNN.npz for the GPU: the same rows
in the same order. Readable with pandas and numpy alone. Knows nothing of torch.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

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


class EncodingsError(ValueError):
    """An encoded shard that is damaged or of another shape than expected."""


@dataclass(frozen=True, slots=True)
class EncodedArrays:
    """The numbers of one shard."""

    latents: NDArray[np.uint8] | NDArray[np.float16]  # [n, c, z, z]
    text: NDArray[np.float16]  # [n, d]
    key: NDArray[np.bytes_]  # [n], ASCII


def write_encoded_shard(folder: Path, name: str, rows: dict[str, list[Any]], arrays: EncodedArrays) -> None:
    """Write both files of a shard, each by rename. Equal rows give equal bytes."""
    table = pa.table(rows, schema=SCHEMA)
    if not table.num_rows == len(arrays.latents) == len(arrays.text) == len(arrays.key):
        raise AssertionError("parquet and npz must have the same rows")
    _write_table(table, folder / f"{name}.parquet")
    unfinished = folder / f"{name}.npz.partial"
    with unfinished.open("wb") as file:
        np.savez(file, latents=arrays.latents, text=arrays.text, key=arrays.key)
    os.replace(unfinished, folder / f"{name}.npz")


def read_arrays(path: Path) -> EncodedArrays:
    """Memory-map the arrays of an NNNNN.npz: nothing is read before it is used."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = {name: _map_member(path, members[name]) for name in ("latents", "text", "key")}
    except (zipfile.BadZipFile, KeyError, struct.error, ValueError) as error:
        raise EncodingsError(f"{path} is not an encoded shard: {error}") from error
    return EncodedArrays(**arrays)


def unmap_pages(arrays: EncodedArrays) -> None:
    """Let go of what was read of memory-mapped arrays: it stays in the system's cache, but no longer counts as this
    process's memory, which would else grow to the size of the files."""
    for array in (arrays.latents, arrays.text):
        if isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def read_rows(folder: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a shard as people read them."""
    return parquet.read_table(folder / f"{name}.parquet", columns=columns)


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
