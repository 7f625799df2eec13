"""The data browser: pages of rows, single rows and pairs of duplicates, as values for JSON."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_catalog.storage.cached_files import exists_anywhere
from pipeline.browse.duplicate_pairs import DUPLICATE_REASONS, DuplicatePairs, pair_duplicates
from pipeline.browse.queries import RowQuery, matching_rows
from pipeline.browse.read_rows import (
    FinishedShards,
    read_columns,
    read_finished,
    read_rejected,
)
from pipeline.browse.rows import BrowsedRows
from pipeline.browse.shard_images import ShardImages, StoredImage
from pipeline.config.run import RunConfig

PAGE_ROWS, PAGE_PAIRS = 60, 20
_MOST_SOURCES = 200  # that are suggested; any can be typed
_QUERIES_KEPT = 8  # whose results stay in memory, so that paging does not search again
_TILE = ("key", "caption", "reason", "clip_score", "original_width", "original_height", "shard")

_STAGES = ("table", "download", "encode")

PairKind = Literal["", "same_file", "looks_the_same"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrowsedRun:
    """What a run has to look through."""

    config: RunConfig
    images: FinishedShards
    encodings: FinishedShards | None
    has_rejected: bool
    """Whether the checks of the input may have rejected rows, so that it must be read."""
    notes: tuple[str, ...]
    """Sentences that say what is not there yet."""


class DataBrowser:
    """Answers questions about the rows of a run. Several threads may ask at once.

    Rejected rows of the input join the others when `read_input` has read them.
    """

    def __init__(self, run: BrowsedRun) -> None:
        self.run = run
        table = read_finished(run.images, run.encodings)
        self.rows = BrowsedRows(table, run.config.train.held_out_fraction)
        self.is_reading = True
        self.notes = list(run.notes)
        self._images = ShardImages(run.images.folder)
        self._lock = threading.Lock()
        self._matching = lru_cache(_QUERIES_KEPT)(matching_rows)

    def read_input(self) -> None:
        """Read the rows that the checks of the input reject, and decide the splits."""
        rows = self.rows
        try:
            rejected = (
                list(read_rejected(self.run.config.download)) if self.run.has_rejected else []
            )
            rows = rows.followed_by(*rejected)
        except Exception as error:  # the page works without them, whatever is wrong
            self.notes.append(f"Rows that the checks of the input reject are missing here: {error}")
        rows.held_out  # noqa: B018  (computed for those who ask later)
        self.rows, self.is_reading = rows, False
        self._matching.cache_clear()

    def summary(self) -> Json:
        """Counts of all rows, and what can be filtered by."""
        rows = self.rows
        sources = sorted(rows.sources.counts().items(), key=lambda item: -item[1])
        reasons = rows.reasons.counts()
        return {
            "name": self.run.config.name,
            "notes": list(self.notes),
            "reading": self.is_reading,
            "rows": len(rows),
            "kept": reasons.pop("", 0),
            "reasons": [
                {"reason": name, "rows": n} for name, n in sorted(reasons.items(), key=_by_stage)
            ],
            "sources": [{"source": name, "rows": n} for name, n in sources[:_MOST_SOURCES]],
            "scored": int(np.count_nonzero(~np.isnan(rows.clip_score))),
            "duplicates": {
                kind: reasons.get(reason, 0)
                for kind, reason in zip(
                    ("same_file", "looks_the_same"), DUPLICATE_REASONS, strict=True
                )
            },
        }

    def page(self, query: RowQuery, page: int) -> Json:
        """One page of the rows that match, from page 0."""
        rows = self.rows
        numbers = self._matching(rows, query)
        shown = numbers[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
        return {
            "rows": self._tiles(rows, shown),
            "found": len(numbers),
            "pages": -(-len(numbers) // PAGE_ROWS),
        }

    def row(self, number: int) -> Json | None:
        """Everything that is known of a row, or None if there is no such row."""
        rows = self.rows
        if not 0 <= number < len(rows):
            return None
        row = rows.table.slice(number, 1).to_pylist()[0]
        captions = [row["caption"], *(row["more_captions"] or ())]
        return {
            **self._tiles(rows, np.array([number]))[0],
            **self._stored_facts(row["shard"], row["key"]),
            "url": row["url"],
            "row": row["row"],
            "source": row["source"],
            "split": rows.split_of(number),
            "captions": [
                {"column": column, "caption": caption}
                for column, caption in zip(
                    self.run.config.download.caption_columns, captions, strict=False
                )
                if caption is not None
            ],
        }

    def image(self, number: int) -> StoredImage | None:
        """The stored image of a row, or None if it has none any more."""
        rows = self.rows
        if not 0 <= number < len(rows) or not rows.table["is_image"][number].as_py():
            return None
        shard, key = (str(rows.table[name][number].as_py()) for name in ("shard", "key"))
        return self._images.image(shard, key)

    def pairs(self, kind: PairKind, page: int) -> Json:
        """One page of the duplicates, each with the row that it repeats, from page 0."""
        pairs, rows = self._pairs, self.rows
        chosen = np.arange(len(pairs.bits))
        if kind:
            chosen = np.flatnonzero(pairs.same_file == (kind == "same_file"))
        shown = chosen[page * PAGE_PAIRS : (page + 1) * PAGE_PAIRS]
        sides = zip(
            self._tiles(rows, pairs.dropped[shown]),
            self._tiles(rows, pairs.repeated[shown]),
            pairs.bits[shown].tolist(),
            strict=True,
        )
        return {
            "pairs": [
                {"dropped": dropped, "repeated": repeated, "bits": bits if bits >= 0 else None}
                for dropped, repeated, bits in sides
            ],
            "found": len(chosen),
            "pages": -(-len(chosen) // PAGE_PAIRS),
        }

    @property
    def _pairs(self) -> DuplicatePairs:
        with self._lock:  # computed once
            return self._computed_pairs

    @cached_property
    def _computed_pairs(self) -> DuplicatePairs:
        return pair_duplicates(self.rows, self._folder, self.run.config.download)

    @property
    def _folder(self) -> Path:
        return self.run.images.folder

    def _tiles(self, rows: BrowsedRows, numbers: NDArray[np.int64]) -> list[Json]:
        """What a tile of the page shows of each row."""
        chosen = rows.table.select([*_TILE, "is_image"]).take(pa.array(numbers, pa.int64()))
        shards = {name for name in chosen["shard"].to_pylist() if name}
        present = {name for name in shards if exists_anywhere(self._folder / f"{name}.tar")}
        return [
            {
                "number": number,
                "key": row["key"],
                "caption": row["caption"],
                "reason": row["reason"],
                "score": None if np.isnan(row["clip_score"]) else round(row["clip_score"], 2),
                "width": row["original_width"],
                "height": row["original_height"],
                "has_image": row["is_image"] and row["shard"] in present,
            }
            for number, row in zip(numbers.tolist(), chosen.to_pylist(), strict=True)
        ]

    def _stored_facts(self, shard: str, key: str) -> Json:
        """The columns of a row that are not in memory."""
        if not shard:
            return {}
        table = read_columns(self._folder, shard, ["key", "sha256", "width", "height"])
        found_rows = table.filter(pc.equal(table["key"], key)).to_pylist()
        facts = found_rows[0] if found_rows else {}
        return {
            "sha256": facts.get("sha256") or "",
            "stored_width": facts.get("width") or 0,
            "stored_height": facts.get("height") or 0,
        }


def _by_stage(reason: tuple[str, int]) -> tuple[int, int]:
    """Stages in their order, and their most frequent reasons first."""
    name, count = reason
    return _STAGES.index(name.partition(":")[0]), -count
