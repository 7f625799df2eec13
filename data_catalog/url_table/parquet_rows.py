"""Reader for Parquet files whose memory is bounded in bytes, not only in rows.

Dictionary-encoded columns are decoded only after their values are cut to the longest allowed cell,
and then a few megabytes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.url_table.files import NotATable
from data_catalog.url_table.rows import (
    LONGEST_CELL,
    Place,
    RowBatch,
    TableColumns,
    as_batch,
    find_columns,
    is_kept,
)

_BATCH_BYTES = 8 << 20  # of one column, as text
_PLAUSIBLE_RATIO = 100  # text compresses 3 to 20 times
_SMALL_GROUP_BYTES = 4 << 20
_UNSUSPICIOUS_BYTES = 64 << 20  # of a row group, whatever its ratio


def parquet_batches(
    stream: IO[bytes], columns: TableColumns, most_rows: int, buffer_bytes: int
) -> Iterator[RowBatch]:
    """All rows, in batches.

    Raises:
        NotATable: a row group would decompress to gigabytes.
        pa.ArrowException: the file is damaged.
    """
    stream.seek(0, 2)
    file_bytes = stream.tell()
    # Without a buffer, a whole column of a row group is read at once, which may be the whole table.
    options = {"buffer_size": buffer_bytes, "pre_buffer": False}
    with parquet.ParquetFile(stream, **options) as plain:
        places, _missing = find_columns(columns, plain.schema_arrow.names)
        needed = sorted({place.column for place in places.values()})
        text = _text_columns(plain.schema, needed)
        with parquet.ParquetFile(stream, **options, read_dictionary=text) as folded:
            start = 0
            for group in range(plain.num_row_groups):
                _refuse_bomb(plain.metadata.row_group(group).total_byte_size, file_bytes)
                file, rows = _way_to_read(plain, folded, group, needed, most_rows)
                for batch in file.iter_batches(
                    rows, row_groups=[group], columns=needed, use_threads=False
                ):
                    yield from arrow_batches(batch, places, start)
                    start += batch.num_rows


def arrow_batches(
    batch: pa.RecordBatch, places: dict[str, Place], start: int
) -> Iterator[RowBatch]:
    """The texts at these places of an Arrow batch, by role, numbered from `start`."""
    for part in _parts(batch, places):
        numbers = np.arange(start, start + part.num_rows)
        texts = {role: _as_text(part[role], booleans=is_kept(role)) for role in places}
        yield as_batch(texts, numbers)
        start += part.num_rows


def _text_columns(schema: parquet.ParquetSchema, needed: list[str]) -> list[str]:
    """The paths of the needed text columns, and of text nested in needed columns."""
    columns = (schema.column(number) for number in range(len(schema)))
    paths = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return [path for path in paths if any(f"{path}.".startswith(f"{name}.") for name in needed)]


def _refuse_bomb(unpacked: int, file_bytes: int) -> None:
    if unpacked > max(_UNSUSPICIOUS_BYTES, _PLAUSIBLE_RATIO * file_bytes):
        raise NotATable(
            f"{file_bytes / 1e6:.1f} MB would decompress to {unpacked / 1e6:.0f} MB; text does not "
            "compress that well, so the file is not read"
        )


def _way_to_read(
    plain: parquet.ParquetFile,
    folded: parquet.ParquetFile,
    group: int,
    needed: list[str],
    most_rows: int,
) -> tuple[parquet.ParquetFile, int]:
    """How to read a row group: from the plain file or the one with dictionary encoding, and how
    many rows at a time.

    Columns stay dictionary-encoded if their values are long or the group is small; otherwise that
    would cost memory and time. Column metadata is not used, because pyarrow kills the process if it
    is damaged.
    """
    of_group = plain.metadata.row_group(group)
    if of_group.total_byte_size <= _SMALL_GROUP_BYTES:
        return folded, most_rows
    first = next(
        folded.iter_batches(1, row_groups=[group], columns=needed, use_threads=False), None
    )
    longest = max([1, *map(_longest, first.columns)]) if first else 1
    if longest > LONGEST_CELL:
        return folded, most_rows
    average = max(1, of_group.total_byte_size // max(of_group.num_rows, 1))
    return plain, max(1, min(most_rows, _BATCH_BYTES // max(average, longest)))


def _longest(column: pa.Array) -> int:
    """The number of bytes in the longest value, including unused values of a dictionary."""
    while pa.types.is_nested(column.type) and not isinstance(column, pa.StructArray):
        column = column.flatten()
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary
    return int(_cell_bytes(column).max(initial=0))


def _parts(batch: pa.RecordBatch, places: dict[str, Place]) -> Iterator[pa.RecordBatch]:
    """A batch with its columns named by role, in parts of a few megabytes of text."""
    cells = {
        role: _short(_scalar_column(batch[place.column], place.element))
        for role, place in places.items()
    }
    bytes_to = np.zeros(batch.num_rows, np.int64)
    for array in cells.values():
        bytes_to = np.maximum(bytes_to, np.cumsum(_cell_bytes(array)))
    by_role, start = pa.RecordBatch.from_arrays(list(cells.values()), names=list(cells)), 0
    while start < batch.num_rows:
        before = bytes_to[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(bytes_to, before + _BATCH_BYTES, side="right")))
        yield by_role.slice(start, end - start)
        start = end


def _scalar_column(array: pa.Array, element: int) -> pa.Array:
    """A column with one element of each list, null if the list is too short."""
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        return pa.nulls(len(array), pa.string()) if element else array
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy()[:-1].astype(np.int64) + element
    return array.values.take(pa.array(offsets, mask=lengths <= element))


def _short(array: pa.Array) -> pa.Array:
    """A column whose over-long values are cut, but still count as too long."""
    if isinstance(array, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(array.indices, _short(array.dictionary))
    if not _is_text(array.type):
        return array
    too_long = pc.fill_null(pc.greater(pc.binary_length(array), LONGEST_CELL), False)
    if not pc.any(too_long).as_py():
        return array
    cut = [value.as_buffer()[:LONGEST_CELL].to_pybytes() for value in array.filter(too_long)]
    cut = [value.decode(errors="ignore").encode().ljust(LONGEST_CELL + 1, b".") for value in cut]
    return pc.replace_with_mask(
        array.cast(pa.large_binary()), too_long, pa.array(cut, pa.large_binary())
    )


def _cell_bytes(array: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The number of bytes of each value as text."""
    if isinstance(array, pa.DictionaryArray):
        sizes = np.append(_cell_bytes(array.dictionary), 0)
        indices = pc.fill_null(array.indices, len(sizes) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(sizes[indices])
    if not _is_text(array.type):
        return np.full(len(array), 32, np.int64)
    return np.asarray(
        pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False), np.int64
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _as_text(array: pa.Array, *, booleans: bool) -> pa.Array:
    """Any column as valid strings, because Parquet does not guarantee that strings are UTF-8; one
    of true and false only with `booleans`, or else as nulls."""
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type):
        raise pa.ArrowInvalid(f"a column of type {array.type} holds no text")
    if pa.types.is_boolean(array.type):
        return array.cast(pa.string()) if booleans else pa.nulls(len(array), pa.string())
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    try:
        return array.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary()).to_pylist()
        return pa.array(
            [value if value is None else value.decode(errors="replace") for value in raw],
            pa.string(),
        )
    except pa.ArrowNotImplementedError:  # numbers and times cannot be cast to bytes
        return array.cast(pa.string())
