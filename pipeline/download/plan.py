"""The plan of a download: rows, hosts, bytes and time, estimated before anything is fetched.

The table is read once, in pieces. Nothing is written.
"""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.input_rows import open_rows
from data_catalog.sources import known_sources
from data_catalog.storage.receipts import read_receipt
from data_catalog.url_table.table import RowCounts, rows_known
from pipeline.config.run import RunConfig
from pipeline.stages.remote_workspace import sync_listing
from pipeline.stages.run_inputs import RunInputs

# Size of a stored image by format. For jpg: 25 to 30 kB at 256 px and quality 95, as published for
# CC12M (331 GB) and LAION-400M (10 TB). The others in proportion, as photographs compress.
BYTES_PER_PIXEL = {"jpg": 0.43, "webp": 0.35, "png": 1.7}
TOKENS_PER_CAPTION = 25  # captions on the web have about 10 to 20 words
ROW_BYTES = 400  # URL, caption and figures of one pair in tar headers, Parquet and JSON
# img2dataset reports 630 to 1300 images/s on 16 cores; one image occupies a connection for about
# half a second.
IMAGES_PER_S_AND_WORKER = 60.0
SECONDS_PER_IMAGE = 0.5
_TOP_HOSTS = 10
_MAX_HOSTS = 200_000


@dataclass(slots=True)
class HeavyHosts:
    """The hosts with the most URLs, counted in bounded memory.

    Above `limit` hosts, those with the fewest URLs are discarded. A discarded host that appears
    again is undercounted by at most `missed`.
    """

    limit: int = _MAX_HOSTS
    missed: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, urls: pa.ChunkedArray) -> None:
        """Count the hosts of http(s) URLs."""
        netloc = pc.list_element(pc.split_pattern(urls, "/", max_splits=3), 2)
        for entry in pc.value_counts(netloc).to_pylist():
            host = re.split("[?#]", entry["values"])[0].rpartition("@")[2]
            self.counts[host.lower()] += entry["counts"]
        if len(self.counts) > self.limit:
            ranked = self.counts.most_common()
            self.missed += ranked[self.limit // 2][1]
            self.counts = Counter(dict(ranked[: self.limit // 2]))

    def top(self) -> tuple[tuple[str, int], ...]:
        return tuple(self.counts.most_common(_TOP_HOSTS))


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What a download would fetch, and what it would cost."""

    account: RowCounts
    shards: int
    finished: int  # shards that exist already and are complete
    hosts: HeavyHosts
    success: float  # expected share of the usable rows that become images
    image_bytes: int
    encoding_bytes: int
    urls_per_s: float  # assumed
    seconds: float  # for the missing shards
    disk_free: int
    folder: Path


def plan_download(config: RunConfig, report: Callable[[int, int | None], None]) -> DownloadPlan:
    """Read the table and estimate the download.

    `report` is called with the number of rows read so far and, if known, the total. Raises
    UrlTableError if the table cannot be read.
    """
    settings = config.download
    table = open_rows(settings.rows)
    total = rows_known(settings.urls) if settings.urls else table.rows_about()
    if total and settings.limit:
        total = min(total, settings.limit)
    sync_listing(config, "download", accounts=True)
    folder = RunInputs(config).stage_run("download", {}).folder
    counts, hosts, shards, finished = RowCounts(), HeavyHosts(), 0, 0
    for shard in table.shards(settings.shard_size, counts):
        if settings.urls:
            hosts.add(shard.pairs["url"])
        shards += 1
        finished += read_receipt(folder, shard.name) is not None
        report(counts.rows, total)

    existing = next(
        path for path in (config.folder, *config.folder.absolute().parents) if path.exists()
    )
    success = known_sources()[settings.source].success if settings.source else 1.0
    images = counts.usable * success
    bytes_per_image = settings.image_size**2 * BYTES_PER_PIXEL[settings.image_format] + ROW_BYTES
    latent = config.model.latent_channels * config.model.latent_size**2  # uint8
    latent *= 2 if config.encode.posterior == "spread" else 1
    latent *= 2 if config.encode.flips else 1
    dim = config.model.text_dim
    token = 2 * dim if config.encode.token_dtype == "float16" else dim + 2  # uint8 and a scale
    by_token = TOKENS_PER_CAPTION * token if config.encode.text == "tokens" else 0
    text = len(settings.caption_columns) * (2 * dim + by_token)  # pooled as float16
    # The cores bound the speed of resizing, the connections that of fetching.
    fetched_per_s = settings.threads / SECONDS_PER_IMAGE if settings.urls else math.inf
    per_worker = min(IMAGES_PER_S_AND_WORKER, fetched_per_s)
    urls_per_s = settings.workers * per_worker
    return DownloadPlan(
        account=counts,
        shards=shards,
        finished=finished,
        hosts=hosts,
        success=success,
        image_bytes=round(images * bytes_per_image),
        encoding_bytes=round(images * (latent + text + ROW_BYTES)),
        urls_per_s=urls_per_s,
        seconds=counts.usable * (1 - finished / shards) / urls_per_s,
        disk_free=shutil.disk_usage(existing).free,
        folder=folder,
    )
