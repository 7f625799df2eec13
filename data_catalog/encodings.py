"""Encoded shards (form 3 of the data): latents and text embeddings with their metadata.

A shard is NNNNN.parquet for people and NNNNN.npz for the GPU, with the same rows in the same order.
pandas and numpy are enough to read it.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from data_catalog.array_checks import FURTHER_LATENTS, check_further_latents, check_starts
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import replacing

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
# An additional last column if the table has several caption columns. It has one entry for each
# further caption column, null if the pair has no caption there.
MORE_CAPTIONS = pa.field("more_captions", pa.list_(pa.string()))
# Behind these come the columns of download.keep_columns, which are strings.
COLUMN_TYPES = {field.name: field.type for field in (*SCHEMA, MORE_CAPTIONS)}


class EncodingsError(ValueError):
    """An encoded shard is damaged or does not have the expected shape."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class EncodedArrays:
    """The arrays of one shard."""

    latents: NDArray[np.uint8] | NDArray[np.float16]  # [n, c, z, z]
    text: NDArray[np.float16]  # [n, d], or [m, d] if pairs have several captions
    key: NDArray[np.bytes_]  # [n], ASCII
    # Only if the table has several caption columns: the captions of pair i are rows
    # text_start[i]:text_start[i+1] of text, the main one first.
    text_start: NDArray[np.int64] | None = None  # [n + 1]
    # [m], number of the caption column; 0 is the main one
    text_column: NDArray[np.uint8] | None = None
    # Only if captions are encoded by token: the tokens of row j of text are rows
    # token_start[j]:token_start[j+1] of tokens.
    tokens: NDArray[np.uint8] | NDArray[np.float16] | None = None  # [k, t], no padding
    token_start: NDArray[np.int64] | None = None  # [m + 1]
    # Only if they are uint8: a state is (tokens - 128) * token_scale of its row.
    token_scale: NDArray[np.float16] | None = None  # [k]
    # Only with encode.flips: the latents of the mirrored images, stored as `latents` are.
    flipped: NDArray[np.uint8] | NDArray[np.float16] | None = None  # [n, c, z, z]
    # Only with encode.posterior=spread: standard deviations of the posteriors, of which `latents`
    # and `flipped` are the means, on a logarithmic scale.
    latents_spread: NDArray[np.uint8] | None = None  # [n, c, z, z]
    flipped_spread: NDArray[np.uint8] | None = None  # [n, c, z, z]

    @property
    def by_name(self) -> dict[str, NDArray[Any]]:
        """The arrays that are present, by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in named if array is not None}


def write_encoded_shard(
    folder: Path, name: str, rows: dict[str, list[Any]], arrays: EncodedArrays
) -> None:
    """Write both files of a shard. Equal rows give equal bytes."""
    more = [MORE_CAPTIONS] if MORE_CAPTIONS.name in rows else []
    keep = [(name, pa.string()) for name in rows if name not in COLUMN_TYPES]
    table = pa.table(rows, schema=pa.schema([*SCHEMA, *more, *keep]))
    main = arrays.text if arrays.text_start is None else arrays.text_start[:-1]
    if not table.num_rows == len(arrays.latents) == len(main) == len(arrays.key):
        raise AssertionError("parquet and npz must have the same rows")
    with replacing(folder / f"{name}.parquet") as unfinished:
        parquet.write_table(table, unfinished, compression="zstd")
    with replacing(folder / f"{name}.npz") as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays.by_name)  # type: ignore[arg-type]  # mypy: taken for its options


_F16, _U8, _I64 = np.dtype("<f2"), np.dtype("u1"), np.dtype("<i8")
# The allowed types and the number of dimensions of each array. Keys are bytes of any length up to
# _LONGEST_KEY.
_TYPES: dict[str, tuple[tuple[np.dtype[Any], ...], int]] = {
    "latents": ((_U8, _F16), 4),
    "text": ((_F16,), 2),
    "key": ((), 1),
    "text_start": ((_I64,), 1),
    "text_column": ((_U8,), 1),
    "tokens": ((_U8, _F16), 2),
    "token_start": ((_I64,), 1),
    "token_scale": ((_F16,), 1),
    "flipped": ((_U8, _F16), 4),
    "latents_spread": ((_U8,), 4),
    "flipped_spread": ((_U8,), 4),
}
_LONGEST_KEY = 1024
_ALWAYS = ("latents", "text", "key")


def read_arrays(path: Path) -> EncodedArrays:
    """Memory-map the arrays of an NNNNN.npz, so that data is read from disk only when it is used.

    The file is not trusted. Raises EncodingsError if an array has an unexpected type, is larger
    than its place in the file, or does not fit the other arrays.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
            members = {info.filename.removesuffix(".npy"): info for info in infos}
            if len(members) != len(infos):
                raise ValueError("it contains an array twice")
            present = [name for name in _TYPES if name in members or name in _ALWAYS]
            arrays = EncodedArrays(
                **{name: _map_member(file, members[name], name) for name in present}
            )
            _check_fit(arrays)
        except Exception as error:  # a damaged or hostile header can fail in any way
            problem = (
                f"it lacks {error}"
                if isinstance(error, KeyError)
                else str(error) or type(error).__name__
            )
            raise EncodingsError(f"{path} is not an encoded shard: {problem}") from error
    return arrays


def unmap_pages(arrays: EncodedArrays) -> None:
    """Release the pages that were read from memory-mapped arrays.

    They stay in the page cache of the system but no longer count as memory of this process, which
    would otherwise grow to the size of the files.
    """
    for name in ("latents", "text", "tokens", "token_scale", *FURTHER_LATENTS):
        array = getattr(arrays, name)
        if array is not None and isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def read_rows(folder: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a shard's Parquet file. Raises EncodingsError if the file is damaged."""
    path = ensure_local(folder / f"{name}.parquet")
    problem = f"{path} does not hold the rows of an encoded shard"
    try:
        table = parquet.read_table(path, columns=columns)
        table.validate(full=True)  # checks that text is UTF-8
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise EncodingsError(f"{problem}: {error}") from error
    for column in columns or SCHEMA.names:
        if column not in table.column_names:
            raise EncodingsError(f"{problem}: it has no column {column}")
        expected = COLUMN_TYPES.get(column, pa.string())
        if (actual := table.schema.field(column).type) != expected:
            raise EncodingsError(f"{path}: column {column} holds {actual}, not {expected}")
    return table


def _map_member(file: BinaryIO, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """Map one stored (not deflated) .npy of a zip file, after its header was checked against the
    file."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    # The local header repeats name and extra field, whose lengths are at 26 and 28 (APPNOTE 4.3.7).
    file.seek(member.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = member.header_offset + 30 + name_length + extra_length
    file.seek(start)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(file)
    offset = file.tell()

    types, dimensions = _TYPES[name]
    is_key = name == "key" and dtype.kind == "S" and 0 < dtype.itemsize <= _LONGEST_KEY
    if not (is_key or dtype in types):
        raise ValueError(f"{name} has the type {dtype}, which no encoding has")
    if len(shape) != dimensions or min(shape) < 0:
        raise ValueError(f"{name} has the shape {shape}, which no encoding has")
    end = offset + math.prod(shape) * dtype.itemsize
    if end != start + member.file_size or end > os.fstat(file.fileno()).st_size:
        raise ValueError(f"{name} of shape {shape} does not fit its place in the file")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(
        file, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C"
    )


def _check_fit(arrays: EncodedArrays) -> None:
    """Raise ValueError if arrays differ in their number of rows, or start offsets are out of
    range."""
    pairs, captions = len(arrays.key), len(arrays.text)
    if len(arrays.latents) != pairs:
        raise ValueError(f"{len(arrays.latents)} latents for {pairs} keys")
    if (arrays.text_start is None) != (arrays.text_column is None) or (arrays.tokens is None) != (
        arrays.token_start is None
    ):
        raise ValueError(
            "text_start and text_column must come together, and so must tokens and token_start"
        )
    if arrays.text_start is None and captions != pairs:
        raise ValueError(f"{captions} texts for {pairs} keys")
    if arrays.text_column is not None and len(arrays.text_column) != captions:
        raise ValueError(f"text_column has {len(arrays.text_column)} rows for {captions} texts")
    _check_scale(arrays)
    check_further_latents(arrays.by_name)
    check_starts("text_start", arrays.text_start, pairs, captions)
    tokens = 0 if arrays.tokens is None else len(arrays.tokens)
    check_starts("token_start", arrays.token_start, captions, tokens)


def _check_scale(arrays: EncodedArrays) -> None:
    is_uint8 = arrays.tokens is not None and arrays.tokens.dtype == _U8
    if is_uint8 != (arrays.token_scale is not None):
        raise ValueError("tokens of uint8 must come with token_scale, and others without it")
    scales, tokens = (len(x) if x is not None else 0 for x in (arrays.token_scale, arrays.tokens))
    if is_uint8 and scales != tokens:
        raise ValueError(f"token_scale has {scales} rows for {tokens} tokens")
