"""report.html of the download: one page, opens without network, says what came of the table. Knows
no models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.images import sample_image_pairs
from data_catalog.redaction import redacted
from data_catalog.row_counts import account_rows
from data_catalog.storage.cached_files import ensure_local, exists_anywhere
from data_catalog.storage.files import write_atomically
from data_catalog.storage.receipts import Shard
from pipeline.config.download import DownloadConfig
from pipeline.download.outcomes import SIDES, DownloadCounts
from pipeline.reporting.image_grid import image_grid
from pipeline.reporting.render import data_uri, render_page

REPORT_FILE = "report.html"
_THUMBNAILS = 64
_HOSTS = 20
_SHARDS_LOOKED_INTO = 8


def write_download_report(
    out: Path,
    config: DownloadConfig,
    figures: dict[str, Any],
    told: DownloadCounts,
    shards: Sequence[Shard],
) -> None:
    """Write the page into the folder of the images."""
    account = figures["account"]
    hosts = [
        (host, count, 1 - told.failed_at[host] / count)
        for host, count in told.asked_of.most_common(_HOSTS)
    ]
    asked = told.downloaded + told.failed.total()
    page = render_page(
        "download_report.html.j2",
        config=config,
        table=redacted(config.urls),
        figures=figures,
        asked=asked,
        success=told.downloaded / asked if asked else 0.0,
        kept=sum(shard.rows for shard in shards),
        causes=account_rows(account),
        hosts=hosts,
        sides=[(_range(number), told.short_sides[number]) for number in sorted(told.short_sides)],
        pictures=_thumbnails(out, shards),
    )
    write_atomically(out / REPORT_FILE, page)


def _range(number: int) -> str:
    if number == 0:
        return f"below {SIDES[0]}"
    return (
        f"{SIDES[number - 1]} and more"
        if number == len(SIDES)
        else f"{SIDES[number - 1]} to {SIDES[number] - 1}"
    )


def _thumbnails(out: Path, shards: Sequence[Shard]) -> str:
    """Random pictures with their captions, from a few random shards, as a data URI."""
    chance = random.Random(0)
    tars = [
        tar for shard in shards if shard.rows and exists_anywhere(tar := out / f"{shard.name}.tar")
    ]
    chosen = chance.sample(tars, min(_SHARDS_LOOKED_INTO, len(tars)))
    pairs = [
        pair
        for tar in chosen
        for pair in sample_image_pairs(ensure_local(tar), -(-_THUMBNAILS // len(chosen)), chance)
    ]
    if not pairs:
        return ""  # all were let go once they were encoded
    pairs = pairs[:_THUMBNAILS]
    return data_uri(image_grid([pair.image for pair in pairs], [pair.caption for pair in pairs]))
