"""Stage 1, urls -> images. img2dataset fetches, checks, resizes and packs, one shard at a time in processes
of ours; what is added here is an account of every row and the same bytes for the same pictures.

The only file that names img2dataset. Knows nothing of models.
"""

from __future__ import annotations

import io
import os
import shutil
import urllib.request
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pyarrow import ipc, parquet

from data_catalog import shapes
from data_catalog.images import repack_sorted
from data_catalog.manifest import Shard, file_digest, file_records, read_receipt, write_receipt
from data_catalog.shapes_server import serve_shapes
from data_catalog.urls import read_url_table
from pipeline.config import DownloadConfig
from pipeline.stage import MapShards, Output, StageFailed, Tracker

_QUALITY = {"jpg": 95, "png": 6, "webp": 95}  # for png the effort of compression
_DIGITS = 5  # of a shard's number


@dataclass(frozen=True, slots=True)
class UrlShard:
    """Some rows of the table."""

    number: int
    pairs: pa.Table  # url, caption, split

    @property
    def name(self) -> str:
        return f"{self.number:0{_DIGITS}d}"


def download(config: DownloadConfig, out: Path, track: Tracker, map_shards: MapShards) -> Output:
    """Fetch every usable row of the URL table into tar shards of square pictures."""
    table = read_url_table(config.urls, config.columns, config.limit)
    shards = [
        UrlShard(number, table.pairs.slice(start, config.shard_size))
        for number, start in enumerate(range(0, table.pairs.num_rows, config.shard_size))
    ]
    done = {shard.name: receipt for shard in shards if (receipt := read_receipt(out, shard.name))}
    missing = [shard for shard in shards if shard.name not in done]

    server = serve_shapes() if config.urls == shapes.NAME and missing else nullcontext("")
    with server as proxy:
        make_worker = partial(ShardDownloader, config, out, proxy)
        _report(track, done, len(shards))
        for receipt in map_shards(make_worker, missing, config.workers):
            done[receipt.name] = receipt
            _report(track, done, len(shards))

    receipts = tuple(done[name] for name in sorted(done))
    account = _account(table.rows, table.rejected, receipts)
    usable, downloaded = table.pairs.num_rows, account["downloaded"]
    if downloaded < config.min_success_rate * usable or downloaded == 0:
        causes = "\n".join(f"  {count} × {cause}" for cause, count in account["failed"].items())
        raise StageFailed(
            f"download: {downloaded} of {usable} usable rows became pictures ({downloaded / usable:.0%}), fewer than "
            f"download.min_success_rate={config.min_success_rate:g} demands; the failures by cause:\n{causes}\n"
            "What was fetched is kept. Mend the table, or lower download.min_success_rate, and run again."
        )
    return Output(
        receipts, {"account": account, "bytes": sum(file.bytes for r in receipts for file in r.files.values())}
    )


def _account(rows: int, rejected: dict[str, int], receipts: tuple[Shard, ...]) -> dict[str, Any]:
    """Where every row of the table went; it adds up: rows = rejected + failed + downloaded."""
    failed: Counter[str] = Counter()
    for receipt in receipts:
        failed.update(receipt.figures["failed"])
    return {
        "rows": rows,
        "rejected": dict(rejected),
        "failed": dict(failed.most_common()),
        "downloaded": sum(receipt.rows for receipt in receipts),
    }


def _report(track: Tracker, done: dict[str, Shard], shards: int) -> None:
    pictures = sum(shard.rows for shard in done.values())
    failed = sum(sum(shard.figures["failed"].values()) for shard in done.values())
    track.progress(len(done), shards, f"{pictures} pictures, {failed} failed")
    track.metrics({"pictures": pictures, "failed": failed}, step=len(done))


@dataclass(slots=True)
class ShardDownloader:
    """Downloads one shard at a time with img2dataset's own parts; loads it once a process."""

    config: DownloadConfig
    out: Path
    proxy: str
    _resizer: Any = field(default=None, init=False)

    def __call__(self, shard: UrlShard) -> Shard:
        """Fetch a shard and put its files in place: tar, parquet, and the receipt last."""
        scratch = self.out / f".{shard.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self._run_img2dataset(shard, scratch)

        told = parquet.read_table(scratch / f"{shard.name}.parquet").sort_by("key")
        packed = repack_sorted(scratch / f"{shard.name}.tar", scratch / "sorted.tar")
        failed = Counter(row["error_message"] for row in told.to_pylist() if row["status"] != "success")
        succeeded = told.num_rows - sum(failed.values())
        if packed != succeeded:
            raise StageFailed(
                f"download: shard {shard.name} has {packed} pictures in its tar, {succeeded} in its table"
            )
        if unaccounted := shard.pairs.num_rows - told.num_rows:
            failed["lost inside img2dataset"] += unaccounted
        return self._finish(shard.name, scratch, told, succeeded, failed)

    def _finish(self, name: str, scratch: Path, told: pa.Table, succeeded: int, failed: Counter[str]) -> Shard:
        parquet.write_table(told, scratch / "sorted.parquet", compression="zstd")
        tar, table = self.out / f"{name}.tar", self.out / f"{name}.parquet"
        os.replace(scratch / "sorted.tar", tar)
        os.replace(scratch / "sorted.parquet", table)
        receipt = Shard(
            name=name,
            rows=succeeded,
            digest=file_digest(tar),
            files=file_records([tar, table]),
            figures={"failed": dict(failed.most_common())},
        )
        write_receipt(self.out, receipt)
        shutil.rmtree(scratch)
        return receipt

    def _run_img2dataset(self, shard: UrlShard, scratch: Path) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import calls out to a package index
        from img2dataset.downloader import Downloader
        from img2dataset.resizer import Resizer
        from img2dataset.writer import WebDatasetSampleWriter

        if self.proxy:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": self.proxy}))
            urllib.request.install_opener(opener)
        if self._resizer is None:
            self._resizer = Resizer(
                image_size=self.config.image_size,
                resize_mode="center_crop",
                resize_only_if_bigger=False,
                encode_quality=_QUALITY[self.config.image_format],
                encode_format=self.config.image_format,
            )
        feather = scratch / "pairs.feather"
        with ipc.new_file(feather, shard.pairs.schema) as writer:
            writer.write_table(shard.pairs)
        work = Downloader(
            sample_writer_class=WebDatasetSampleWriter,
            resizer=CheckedResizer(self._resizer),
            thread_count=self.config.threads,
            save_caption=True,
            extract_exif=False,
            output_folder=str(scratch),
            column_list=shard.pairs.column_names,
            timeout=self.config.timeout_s,
            number_sample_per_shard=self.config.shard_size,
            oom_shard_count=_DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format=self.config.image_format,
            retries=self.config.retries,
            user_agent_token=None,
            disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
        )
        work.download_shard((shard.number, str(feather)))


@dataclass(frozen=True, slots=True)
class CheckedResizer:
    """img2dataset's resizer behind a check: it would take half a JPEG for a whole one, and show pictures
    that a camera marked as turned lying on their side."""

    resizer: Any

    def __call__(self, stream: io.BytesIO, _boxes: object = None) -> Any:
        try:
            with Image.open(stream) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
                if not turned:
                    image.draft("RGB", (64, 64))  # a JPEG is read whole but decoded small: cheap
                image.load()
                if turned:
                    upright = io.BytesIO()
                    ImageOps.exif_transpose(image).save(upright, format="PNG")
                    stream = upright
        except UnidentifiedImageError:
            return _refused("not an image")
        except Image.DecompressionBombError:
            return _refused("image area too large")
        except Exception:  # decoders of damaged files raise nearly anything
            return _refused("truncated or damaged image")
        return self.resizer(stream)


def _refused(why: str) -> tuple[None, None, None, None, None, str]:
    """img2dataset's answer for a picture that can't be used"""
    return None, None, None, None, None, why
