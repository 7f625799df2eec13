"""Excluded rows: every row of the input that has no encoding, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyarrow import parquet

from data_catalog.excluded_rows import read_dropped
from data_catalog.input_rows import open_rows
from data_catalog.storage.manifest import Manifest
from pipeline.config.download import DownloadConfig
from pipeline.download.outcomes import last_tries
from pipeline.stages.freshness import StageStatus

COLUMNS = ("stage", "reason", "row", "url", "caption")
Row = dict[str, Any]


def dropped_rows(config: DownloadConfig, statuses: Mapping[str, StageStatus]) -> Iterator[Row]:
    """Unusable rows of the table, failed downloads and duplicates, and pairs that the encoding left
    out, as far as the stages are finished. Raises UrlTableError if the table cannot be read."""
    for rejected in open_rows(config.rows).rejected_rows():
        yield _row("table", rejected.reason, rejected.url, rejected.caption, rejected.row)
    if images := statuses["download"].manifest:
        yield from _failed(images)
        yield from _left_out("download", images)
    if encodings := statuses["encode"].manifest:
        yield from _left_out("encode", encodings)


def _failed(images: Manifest) -> Iterator[Row]:
    last_try = last_tries(images.folder, images.shards)
    for shard in images.shards:
        table = parquet.read_table(
            images.file(f"{shard.name}.parquet"),
            columns=["row", "url", "caption", "status", "error_message"],
        )
        for row in table.to_pylist():
            if row["status"] != "success" and last_try.get(row["row"], shard.name) == shard.name:
                yield _row("download", row["error_message"], row["url"], row["caption"], row["row"])


def _left_out(stage: str, output: Manifest) -> Iterator[Row]:
    for shard in output.shards:
        for row in read_dropped(output.folder, shard.name):
            yield _row(stage, row["reason"], row["url"], row["caption"], None)


def _row(stage: str, reason: str, url: str, caption: str, number: int | None) -> Row:
    return {"stage": stage, "reason": reason, "row": number, "url": url, "caption": caption}
