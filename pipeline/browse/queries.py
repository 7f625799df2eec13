"""Filters and order of browsed rows, on whole columns."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.browse.rows import BrowsedRows


class RowQuery(BaseModel):
    """What to look for. Each field that is set narrows the choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field("", max_length=500)
    """Text within any caption, in either case."""
    state: Literal["", "kept", "left_out"] = ""
    reason: str = Field("", max_length=500)
    """Exactly this reason, as in the list of reasons."""
    source: str = Field("", max_length=2000)
    """A host, tar, file or folder; or a part of its name, if none has the whole name."""
    split: Literal["", "train", "held_out"] = ""
    side_from: int | None = Field(None, ge=0, le=1 << 31)
    side_to: int | None = Field(None, ge=0, le=1 << 31)
    score_from: float | None = Field(None, ge=-1000, le=1000)
    score_to: float | None = Field(None, ge=-1000, le=1000)
    sort: Literal["key", "score", "size"] = "key"
    descending: bool = False


def matching_rows(rows: BrowsedRows, query: RowQuery) -> NDArray[np.int64]:
    """The numbers of the rows that match, in order. Rows without the value that they are sorted by
    come last."""
    mask = np.ones(len(rows), bool)
    if query.state:
        mask &= rows.kept == (query.state == "kept")
    if query.reason:
        mask &= rows.reasons.equal(query.reason)
    if query.source:
        mask &= _from_source(rows, query.source)
    if query.split:
        mask &= rows.kept & (rows.held_out == (query.split == "held_out"))
    if query.side_from is not None or query.side_to is not None:
        mask &= rows.short_side > 0  # known
        mask &= _between(rows.short_side, query.side_from, query.side_to)
    if query.score_from is not None or query.score_to is not None:
        mask &= _between(rows.clip_score, query.score_from, query.score_to)
    if query.text:
        mask &= _with_text(rows.table, query.text)
    return _ordered(rows, np.flatnonzero(mask), query)


def _between(
    values: NDArray[np.int32] | NDArray[np.float32], low: float | None, high: float | None
) -> NDArray[np.bool_]:
    """Whether each value is known and within bounds that may be open."""
    return np.asarray(
        (values >= (-np.inf if low is None else low))
        & (values <= (np.inf if high is None else high))
    )


def _from_source(rows: BrowsedRows, name: str) -> NDArray[np.bool_]:
    names = rows.sources.names
    matches = [name == other for other in names]
    if not any(matches):
        matches = [name.lower() in other.lower() for other in names]
    return np.array(matches, bool)[rows.sources.codes] if names else np.zeros(len(rows), bool)


def _with_text(table: pa.Table, text: str) -> NDArray[np.bool_]:
    """Whether any caption of each row holds a text."""
    mask = _matches(table["caption"], text).copy()
    start = 0
    for chunk in table["more_captions"].chunks:
        if chunk.null_count < len(chunk):
            parents = chunk.value_parent_indices().to_numpy()  # within the chunk
            hits = _matches(chunk.flatten(), text)
            mask[start + parents[hits]] = True
        start += len(chunk)
    return mask


def _matches(texts: pa.Array | pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    hits = pc.fill_null(pc.match_substring(texts, text, ignore_case=True), False)
    return np.asarray(
        hits.to_numpy() if isinstance(hits, pa.ChunkedArray) else hits.to_numpy(False)
    )


def _ordered(rows: BrowsedRows, numbers: NDArray[np.int64], query: RowQuery) -> NDArray[np.int64]:
    if query.sort == "key":  # the rows' own order
        return numbers[::-1] if query.descending else numbers
    values: NDArray[np.float64] = (
        rows.clip_score if query.sort == "score" else rows.short_side
    ).astype(np.float64)[numbers]
    if query.sort == "size":
        values[values == 0] = np.nan
    # NaN is sorted to the end.
    return numbers[np.argsort(-values if query.descending else values, kind="stable")]
