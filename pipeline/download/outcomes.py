"""What became of every row of a download: counted by cause and host, asked again, dropped as a duplicate.

Reads the tables that the shards left; fetches nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_catalog.deduplication import Hashes, find_duplicates
from data_catalog.excluded_rows import dropped_file, write_dropped
from data_catalog.storage.cached_files import discard, local
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.receipts import Shard, finished_shards
from data_catalog.url_table.row_checks import MORE_CAPTIONS
from data_catalog.url_table.table import UrlShard
from pipeline.download.http.opener import is_transient
from pipeline.stages.run_stage import Tracker

LOST = "lost inside img2dataset"
SAME_FILE = "the same file as another URL's"
LOOKS_THE_SAME = "looks the same as another picture"
SIDES = (64, 128, 256, 512, 1024, 2048, 4096)  # bounds of the size histogram, pixels of the short side
_HOSTS_KEPT = 100_000
_PAIR = ["url", "caption", "split", "row"]


@dataclass(slots=True)
class Tally:
    """Rows by what became of them at the last try."""

    downloaded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    asked_of: Counter[str] = field(default_factory=Counter)  # host -> URLs
    failed_at: Counter[str] = field(default_factory=Counter)  # host -> URLs
    short_sides: Counter[int] = field(default_factory=Counter)  # number of the range of pixels -> pictures


def tally(out: Path, receipts: Iterable[Shard]) -> Tally:
    """Count the rows of all shards; of a row that was asked again, only the last try."""
    told, last_try = Tally(), last_tries(out, receipts)
    for receipt in receipts:
        rows = parquet.read_table(
            local(out / f"{receipt.name}.parquet"),
            columns=["row", "url", "status", "error_message", "original_width", "original_height"],
        )
        if last_try:
            rows = rows.filter([last_try.get(row, receipt.name) == receipt.name for row in rows["row"].to_pylist()])
        good = pc.equal(rows["status"], "success")
        told.downloaded += pc.sum(good).as_py() or 0
        told.failed.update(rows.filter(pc.invert(good))["error_message"].to_pylist())
        told.failed[LOST] += receipt.figures["failed"].get(LOST, 0)
        _count_hosts(told, rows, good)
        pictures = rows.filter(good)
        shorter = pc.min_element_wise(pictures["original_width"], pictures["original_height"]).to_numpy()
        told.short_sides.update(np.digitize(shorter, SIDES).tolist())
    told.failed = +told.failed
    return told


def _count_hosts(told: Tally, rows: pa.Table, good: pa.ChunkedArray) -> None:
    hosts = [urlsplit(url).hostname or "" for url in rows["url"].to_pylist()]
    told.asked_of.update(hosts)
    told.failed_at.update(host for host, fine in zip(hosts, good.to_pylist(), strict=True) if not fine)
    for counts in (told.asked_of, told.failed_at):
        if len(counts) > _HOSTS_KEPT:  # the lightest are forgotten: a report shows the heaviest
            kept = dict(counts.most_common(_HOSTS_KEPT // 2))
            counts.clear()
            counts.update(kept)


def later_shards(out: Path, done: dict[str, Shard]) -> dict[str, Shard]:
    """Finished shards beyond the table's: rows that were asked again."""
    last = max(done, default="")
    return {shard.name: shard for shard in finished_shards(out) if shard.name > last}


def failed_for_now(out: Path, names: Sequence[str], shard_size: int) -> Iterator[UrlShard]:
    """Rows that failed, at their last try, for a cause that may pass: as new shards behind all others."""
    told = parquet.read_schema(local(out / f"{names[0]}.parquet")).names
    pair = [*_PAIR, MORE_CAPTIONS] if MORE_CAPTIONS in told else _PAIR
    waiting: dict[int, dict[str, Any]] = {}
    for name in names:
        rows = parquet.read_table(local(out / f"{name}.parquet"), columns=[*pair, "status", "error_message"])
        for row in rows.to_pylist():
            if row["status"] != "success" and is_transient(row["error_message"]):
                waiting[row["row"]] = {column: row[column] for column in pair}
            else:
                waiting.pop(row["row"], None)
    pairs = [waiting[row] for row in sorted(waiting)]
    first = int(names[-1]) + 1
    schema = pa.schema([(column, pa.int64() if column == "row" else pa.string()) for column in pair])
    for number, start in enumerate(range(0, len(pairs), shard_size), first):
        yield UrlShard(number, pa.Table.from_pylist(pairs[start : start + shard_size], schema))


def last_tries(out: Path, receipts: Iterable[Shard]) -> dict[int, str]:
    """Row -> the last shard that asked for it, for the rows that were asked for again."""
    seen_to, last = -1, dict[int, str]()
    for receipt in receipts:
        rows = parquet.read_table(local(out / f"{receipt.name}.parquet"), columns=["row"])["row"].to_numpy()
        if len(rows) and rows.min() <= seen_to:  # the table's own shards only ever go on
            last |= dict.fromkeys(rows.tolist(), receipt.name)
        elif len(rows):
            seen_to = int(rows.max())
    return last


def drop_duplicates(
    out: Path, receipts: Sequence[Shard], same_file: bool, near_bits: int | None
) -> tuple[list[Shard], Counter[str]]:
    """The shards without pictures that repeat an earlier one, and how many went by reason. The pictures stay in
    their tars: NNNNN.dropped.parquet names those that the next stage leaves out."""
    dropped: Counter[str] = Counter()
    if not same_file and near_bits is None:
        return [_undropped(out, receipt) for receipt in receipts], dropped
    files, looks = list[Hashes](), list[Hashes]()
    for receipt in receipts:
        rows = _pictures(out, receipt, ["sha256", "look"])
        files.append(_first_64_bits(rows["sha256"]))
        if near_bits is not None:
            looks.append(_first_64_bits(rows["look"]))
    every_file = np.concatenate(files) if same_file else np.arange(sum(map(len, files)), dtype=np.uint64)
    found = find_duplicates(every_file, np.concatenate(looks) if looks else None, near_bits or 0)

    shards, start = [], 0
    for receipt, pictures in zip(receipts, map(len, files), strict=True):
        part = slice(start, start + pictures)
        start += pictures
        reasons = [
            SAME_FILE if same >= 0 else LOOKS_THE_SAME if like >= 0 else None
            for same, like in zip(found.same_file[part], found.looks_the_same[part], strict=True)
        ]
        gone: list[dict[str, str]] = []
        if any(reasons):
            told = _pictures(out, receipt, ["key", "url", "caption"])
            told = told.append_column("reason", pa.array(reasons, pa.string()))
            gone = told.filter(pc.is_valid(told["reason"])).to_pylist()
        dropped.update(row["reason"] for row in gone)
        shards.append(_without(out, receipt, gone))
    return shards, dropped


def _pictures(out: Path, receipt: Shard, columns: list[str]) -> pa.Table:
    """Some columns of the rows of a shard that became pictures."""
    rows = parquet.read_table(local(out / f"{receipt.name}.parquet"), columns=[*columns, "status"])
    return rows.filter(pc.equal(rows["status"], "success")).select(columns)


def _first_64_bits(digests: pa.ChunkedArray) -> Hashes:
    return np.array([int(digest[:16], 16) for digest in digests.to_pylist()], dtype=np.uint64)


def _undropped(out: Path, receipt: Shard) -> Shard:
    discard([dropped_file(out, receipt.name)])
    return receipt


def _without(out: Path, receipt: Shard, gone: list[dict[str, str]]) -> Shard:
    """A shard less its dropped rows; they enter its digest, since they change what it means."""
    if not gone:
        return _undropped(out, receipt)
    path = write_dropped(out, receipt.name, gone)
    return receipt.model_copy(
        update={
            "rows": receipt.rows - len(gone),
            "digest": f"{receipt.digest} less {file_digest(path)}",
            "files": {**receipt.files, **file_records([path])},
        }
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@dataclass(slots=True)
class DownloadProgress:
    """What a person sees while it downloads."""

    track: Tracker
    rows: int  # of the table
    _fetched: int = 0  # pictures of this run
    _asked: int = 0  # URLs of this run
    _started: float = field(default_factory=time.monotonic)

    def finished(self, receipt: Shard, done: dict[str, Shard]) -> None:
        """A shard was fetched; tell of all so far."""
        done[receipt.name] = receipt
        self._fetched += receipt.rows
        pictures = sum(shard.rows for shard in done.values())
        failed = sum(sum(shard.figures["failed"].values()) for shard in done.values())
        asked = pictures + failed
        self._asked += receipt.rows + sum(receipt.figures["failed"].values())
        left_s = (self.rows - asked) * (time.monotonic() - self._started) / self._asked if self._asked else 0
        note = f"{self.images_per_s:.0f} images/s  {pictures / max(asked, 1):.1%} successful  ETA {_clock(left_s)}"
        self.track.progress(asked, max(self.rows, asked), note)
        self.track.metrics({"pictures": pictures, "failed": failed, "images_per_s": self.images_per_s}, step=len(done))

    @property
    def images_per_s(self) -> float:
        """Pictures that this run fetched, a second."""
        return round(self._fetched / max(time.monotonic() - self._started, 1e-9), 1)
