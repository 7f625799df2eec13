"""Captions from a table of their own, joined to rows by key: recaptioned data sets come so."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from data_catalog.image_formats import IMAGE_SUFFIXES
from data_catalog.url_table.files import UrlTableError, table_files
from data_catalog.url_table.formats import bytes_digest, check_columns, is_metadata, read_batches
from data_catalog.url_table.rows import TableColumns, more_caption_roles

_WHAT = "table of captions"
# Tables name an image as `cats/001` or as `cats/001.jpg`.
_SUFFIX = rf"\.(?i:{'|'.join(sorted(IMAGE_SUFFIXES))})$"


@dataclass(slots=True)
class CaptionTable:
    """All captions of a table, in memory: about as many bytes as the table has as text."""

    source: str
    texts: pa.Table
    """A row for each key. Columns: url, which is the key, caption, and further captions."""
    repeated: int
    """Rows whose key stands further up."""
    _hashes: NDArray[np.uint64]  # sorted
    _rows: NDArray[np.int64]  # the row of texts of each hash
    _used: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._used = np.zeros(len(self._rows), bool)

    @property
    def unused(self) -> int:
        """The number of keys that no row had yet."""
        return int(np.count_nonzero(~self._used))

    def start(self) -> None:
        """Forget which keys rows had."""
        self._used[:] = False

    def join(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with captions in place of the keys in their column `caption`, and null where the
        table lacks the key."""
        keys = _plain(rows["caption"]).cast(pa.large_string())
        hashes = _hashes_of(keys)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        numbers = self._rows[places]
        theirs = self.texts["url"].take(pa.array(numbers)).combine_chunks()
        same = pc.fill_null(pc.equal(theirs, keys), False).to_numpy(zero_copy_only=False)
        self._used[places[same]] = True
        matches = self.texts.take(pa.array(numbers, mask=~same))
        for role in matches.column_names[1:]:
            texts = matches[role].combine_chunks().cast(pa.string())
            rows = (
                rows.set_column(1, role, texts)
                if role == "caption"
                else rows.append_column(role, texts)
            )
        return rows

    def some_keys(self) -> str:
        """Its first keys, for an error."""
        return ", ".join(map(repr, self.texts["url"].slice(0, 3).to_pylist()))


def load_captions(source: str, columns: TableColumns) -> CaptionTable:
    """Read a table of captions in any format of URL tables. `columns.url` names the column of keys.
    Of several rows with one key the first counts. Raises UrlTableError if it cannot be used."""
    files = table_files(source, _WHAT)
    rows = [file for file in files if not is_metadata(file, columns)] or list(files)
    for file in rows:
        check_columns(file, columns)
    names = ["url", "caption", *more_caption_roles(len(columns.more_captions))]
    batches = [batch.rows.select(names) for file in rows for batch in read_batches(file, columns)]
    if not sum(batch.num_rows for batch in batches):
        raise UrlTableError(f"{_WHAT} {source} has no rows")
    # More than 2 GB of text need the larger type.
    schema = pa.schema([(name, pa.large_string()) for name in names])
    texts = pa.Table.from_batches(batches).cast(schema)
    texts = texts.set_column(0, "url", _plain(texts["url"]))
    texts = texts.filter(pc.not_equal(texts["url"], "")).combine_chunks()  # nor null
    if not texts.num_rows:
        raise UrlTableError(f"{_WHAT} {source} has no key in its column {columns.url!r}")
    # A caption that is empty differs from one that is not there.
    texts = texts.set_column(1, "caption", pc.fill_null(texts["caption"], ""))
    hashes, first = np.unique(_hashes_of(texts["url"]), return_index=True)
    return CaptionTable(source, texts, texts.num_rows - len(hashes), hashes, first)


def captions_digest(source: str) -> str:
    """SHA-256 of the bytes of the files of a table of captions."""
    return bytes_digest(table_files(source, _WHAT))


def _plain(keys: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Keys without white space around them and without the suffix of an image."""
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(keys), _SUFFIX, "")


def _hashes_of(keys: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    texts = pc.fill_null(keys, "").cast(pa.large_binary())
    return np.fromiter(
        (xxh3_64_intdigest(text.as_buffer()) for text in texts), np.uint64, len(keys)
    )
