"""Stage 1: the download, which turns URLs or images into tar shards of square images.

The image of every usable row is fetched, and every row is accounted for in the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from data_catalog.figures import ImagesFigures
from data_catalog.input_rows import open_rows
from data_catalog.redaction import redacted
from data_catalog.row_counts import Account
from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.server import serve_shapes
from data_catalog.storage.receipts import Shard, finished_shards, read_receipt
from data_catalog.storage.shard_reuse import ReuseShard, reuse_shard
from data_catalog.url_table.rows import DAMAGED_FILE
from data_catalog.url_table.table import RowCounts, UrlShard
from pipeline.config.download import DownloadConfig
from pipeline.download.deduplicate import drop_duplicates
from pipeline.download.http.failure_causes import NO_TIME_LEFT, is_transient
from pipeline.download.outcomes import (
    DownloadCounts,
    later_shards,
    retryable_rows,
    tally,
)
from pipeline.download.progress import DownloadProgress
from pipeline.download.report import REPORT_FILE, write_download_report
from pipeline.download.shard_downloader import ShardDownloader
from pipeline.download.shard_recipe import recipe_of
from pipeline.stages.contract import MapShards, Output, StageFailed, Tracker
from pipeline.stages.progress import watch_counts

_REMEDIES = {
    "address is not public": (
        " (to allow a server of your own, list its network: "
        "download.allowed_networks=['10.0.0.0/8'])"
    ),
    NO_TIME_LEFT: (
        " (raise download.shard_deadline_s, lower download.shard_size, or retry these rows with "
        "--retry-failed)"
    ),
    "image too small": " (download.min_image_size allows enlarging)",
}


def download(
    config: DownloadConfig,
    out: Path,
    track: Tracker,
    map_shards: MapShards,
    adopt: ReuseShard = reuse_shard,
    *,
    retry_failed: bool = False,
) -> Output:
    """Fetch the image of every usable row into tar shards of square images.

    With `retry_failed`, the rows that failed for a transient reason are fetched again, into new
    shards.
    """
    track.progress(0, 0, "reading the input")
    table = open_rows(config.rows)
    row_counts, done = RowCounts(), dict[str, Shard]()
    progress = DownloadProgress(track, table.rows_about())
    progress.resume([] if retry_failed else finished_shards(out), config.shard_size)
    server = serve_shapes() if config.urls == shapes.NAME else nullcontext("")
    with server as proxy, watch_counts(out, progress.show):
        fetch = partial(map_shards, partial(ShardDownloader, config, out, proxy))
        missing = _missing(table.shards(config.shard_size, row_counts), config, out, done, adopt)
        for receipt in fetch(missing, config.workers, config.shard_deadline_s):
            progress.finished(receipt, done)
        done |= later_shards(out, done)
        if retry_failed:
            retries = retryable_rows(out, sorted(done), config.shard_size)
            for receipt in fetch(retries, config.workers, config.shard_deadline_s):
                progress.finished(receipt, done)

    track.progress(0, 0, "looking for duplicates")
    receipts = [done[name] for name in sorted(done)]
    counts = tally(out, receipts)
    _check_success_rate(config, row_counts.usable, counts)
    shards, dropped = drop_duplicates(
        out, receipts, config.near_duplicate_bits, same_file=config.drop_duplicates
    )
    account = Account(
        rows=row_counts.rows,
        rejected=dict(row_counts.rejected),
        failed=dict(counts.failed.most_common()),
        downloaded=counts.downloaded,
        dropped=dict(dropped),
    )
    # With a limit, the captions of all later rows would count as unused.
    has_every_caption = config.captions and config.limit is None
    figures = ImagesFigures(
        account=account,
        may_pass=sum(count for cause, count in counts.failed.items() if is_transient(cause)),
        bytes=sum(file.bytes for shard in shards for file in shard.files.values()),
        images_per_s=progress.images_per_s,
        unused_captions=row_counts.unused_captions if has_every_caption else None,
    )
    repeated = table.captions.repeated if table.captions else 0
    _warn(track, config, figures, repeated)
    write_download_report(out, config, figures, counts, shards)
    track.artifact(out / REPORT_FILE)
    return Output(tuple(shards), figures.model_dump(mode="json"))


def _warn(track: Tracker, config: DownloadConfig, figures: ImagesFigures, repeated: int) -> None:
    """Warn of input that was left out without a row of its own. `repeated` counts rows of the
    table of captions."""
    captions = redacted(config.captions or "")
    if files := figures.account.rejected.get(DAMAGED_FILE):
        track.warning(
            f"{files} files are damaged and were read up to the damage; `tld catalog dropped "
            f'CONFIG --reason "{DAMAGED_FILE}"` names them'
        )
    if figures.unused_captions:
        track.warning(
            f"{figures.unused_captions:,} captions of {captions} have a key that no row has"
        )
    if repeated:
        track.warning(
            f"{repeated:,} rows of {captions} have the key of an earlier row and were left out"
        )


def _check_success_rate(config: DownloadConfig, usable: int, counts: DownloadCounts) -> None:
    """Raise StageFailed if too few of the usable rows, or none, became images."""
    downloaded = counts.downloaded
    if downloaded and downloaded >= config.min_success_rate * usable:
        return
    required = (
        f"fewer than download.min_success_rate={config.min_success_rate:g} requires"
        if config.min_success_rate
        else "and at least one is required"
    )
    causes = "\n".join(
        f"  {count} × {cause}{_REMEDIES.get(cause, '')}"
        for cause, count in counts.failed.most_common()
    )
    raise StageFailed(
        f"download: only {downloaded} of {usable} usable rows became images "
        f"({downloaded / usable:.0%}), {required}. Failures by cause:\n{causes}\n"
        "Fix the input or lower download.min_success_rate, and run the same command again; "
        "finished images are kept."
    )


def _missing(
    shards: Iterator[UrlShard],
    config: DownloadConfig,
    out: Path,
    done: dict[str, Shard],
    adopt: ReuseShard,
) -> Iterator[UrlShard]:
    """Yield the shards of the table that neither this output nor another one has, and add the
    others to `done`."""
    for shard in shards:
        if receipt := read_receipt(out, shard.name) or adopt(
            out, shard.name, recipe_of(shard, config)
        ):
            done[shard.name] = receipt
        else:
            yield shard
