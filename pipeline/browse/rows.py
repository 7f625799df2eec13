"""Every row of a run's input in memory: a few columns of text, and numbers to filter by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.dataset.split import HELD_OUT, hashes_or_split, held_out_rows

TRAIN = "train"
_NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # "" if the row never reached the download
        ("url", pa.string()),
        ("caption", pa.string()),
        ("more_captions", pa.list_(pa.string())),  # one for each further column, null if missing
        ("table_split", pa.string()),  # of the table: "train", "held_out" or ""
        ("row", pa.int64()),  # number in the input, from 0
        ("original_width", pa.int32()),  # of the upright original; 0 if unknown
        ("original_height", pa.int32()),
        ("clip_score", pa.float32()),  # NaN if it is not encoded
        ("reason", _NAMES),  # why it is left out, after the stage; "" if it is kept
        ("source", _NAMES),  # host, or tar, Parquet file or folder
        ("shard", _NAMES),  # "" if the row never reached the download
        ("is_image", pa.bool_()),  # whether the download made an image of it
    ]
)


@dataclass(frozen=True, slots=True)
class NamedCodes:
    """A column of n rows that has few distinct texts."""

    codes: NDArray[np.int32]  # [n], indices into names
    names: tuple[str, ...]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> NamedCodes:
        """The codes of a dictionary column. The order of the names is that of the rows."""
        joined = column.unify_dictionaries().combine_chunks()
        if isinstance(joined, pa.ChunkedArray):  # without any chunk
            return cls(np.zeros(0, np.int32), ())
        return cls(joined.indices.to_numpy(), tuple(joined.dictionary.to_pylist()))

    def counts(self) -> dict[str, int]:
        """Name -> number of its rows, for names that have some."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return {name: n for name, n in zip(self.names, counts, strict=True) if n}

    def equal(self, name: str) -> NDArray[np.bool_]:
        """Whether each row has this name: [n]."""
        if name not in self.names:
            return np.zeros(len(self.codes), bool)
        return np.asarray(self.codes == self.names.index(name))


@dataclass(frozen=True, eq=False)
class BrowsedRows:
    """n rows: those of the image shards by key, then those that the input's checks reject."""

    table: pa.Table  # SCHEMA
    held_out_fraction: float

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def reasons(self) -> NamedCodes:
        return NamedCodes.of(self.table["reason"])

    @cached_property
    def sources(self) -> NamedCodes:
        return NamedCodes.of(self.table["source"])

    @cached_property
    def shards(self) -> NamedCodes:
        return NamedCodes.of(self.table["shard"])

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Whether each row is not left out: [n]."""
        return self.reasons.equal("")

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """The rows that the download made images of, duplicates included."""
        return np.flatnonzero(self.table["is_image"].to_numpy())

    @cached_property
    def short_side(self) -> NDArray[np.int32]:
        """Short side of each original in pixels, 0 if unknown: [n]."""
        columns = (self.table[name].to_numpy() for name in ("original_width", "original_height"))
        return np.asarray(np.minimum(*columns))

    @cached_property
    def clip_score(self) -> NDArray[np.float32]:
        """NaN where a row is not encoded: [n]."""
        return np.asarray(self.table["clip_score"].to_numpy())

    @cached_property
    def held_out(self) -> NDArray[np.bool_]:
        """Whether each kept row is held out of training: [n], by the rule of training."""
        numbers = np.flatnonzero(self.kept)
        columns = self.table.select(["key", "table_split"]).filter(pa.array(self.kept))
        hashes, by_column = hashes_or_split(columns.rename_columns(["key", "split"]))
        held_out = np.zeros(len(self), bool)
        held_out[numbers] = held_out_rows(hashes, by_column, self.held_out_fraction)
        return held_out

    def split_of(self, number: int) -> str:
        """The split of a row, or "" if it is left out."""
        if not self.kept[number]:
            return ""
        return HELD_OUT if self.held_out[number] else TRAIN

    def followed_by(self, *tables: pa.Table) -> BrowsedRows:
        """These rows, whose numbers stay what they are, and then others."""
        return BrowsedRows(pa.concat_tables([self.table, *tables]), self.held_out_fraction)
