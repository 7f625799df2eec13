"""The download report: report.html, a self-contained page about what became of the table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from data_catalog.figures import ImagesFigures
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
_MAX_SHARDS = 8


def write_download_report(
    out: Path,
    config: DownloadConfig,
    figures: ImagesFigures,
    counts: DownloadCounts,
    shards: Sequence[Shard],
) -> None:
    """Write report.html into the folder of the images."""
    hosts = [
        (host, count, 1 - counts.failures_by_host[host] / count)
        for host, count in counts.requests_by_host.most_common(_HOSTS)
    ]
    requested = counts.downloaded + counts.failed.total()
    page = render_page(
        "download_report.html.j2",
        config=config,
        table=redacted(config.place),
        captions=redacted(config.captions or ""),
        figures=figures,
        asked=requested,
        success=counts.downloaded / requested if requested else 0.0,
        kept=sum(shard.rows for shard in shards),
        causes=account_rows(figures.account),
        hosts=hosts,
        sides=[
            (_range(number), counts.short_sides[number]) for number in sorted(counts.short_sides)
        ],
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
    """A grid of random images with their captions, from a few random shards, as a data URI."""
    rng = random.Random(0)
    tars = [
        tar for shard in shards if shard.rows and exists_anywhere(tar := out / f"{shard.name}.tar")
    ]
    chosen = rng.sample(tars, min(_MAX_SHARDS, len(tars)))
    pairs = [
        pair
        for tar in chosen
        for pair in sample_image_pairs(ensure_local(tar), -(-_THUMBNAILS // len(chosen)), rng)
    ]
    if not pairs:
        return ""  # encode.keep_images=false: all images were evicted
    pairs = pairs[:_THUMBNAILS]
    return data_uri(image_grid([pair.image for pair in pairs], [pair.caption for pair in pairs]))
