"""The shard downloader: fetches, resizes and packs the images of one shard with img2dataset.

The same images give the same bytes, because the members of a tar are sorted and have no times.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tarfile
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc, parquet

from data_catalog.figures import ImageShardFigures
from data_catalog.images import repack_sorted
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.files import put_in_place
from data_catalog.storage.receipts import Shard, write_receipt
from data_catalog.url_table.table import UrlShard
from pipeline.compute.isolated_process import Budget, Isolated, Refused
from pipeline.compute.resource_limits import Shortage, raise_descriptor_limit
from pipeline.config.download import DownloadConfig
from pipeline.download.http.failure_causes import NO_TIME_LEFT
from pipeline.download.http.messages import USER_AGENT_TOKEN
from pipeline.download.image_opener import CountingOpener, Opener, opener_for
from pipeline.download.outcomes import LOST
from pipeline.download.plain_path import plain_path
from pipeline.download.resize import Resized, SquareResizer
from pipeline.download.shard_recipe import recipe_of
from pipeline.stages.contract import StageFailed
from pipeline.stages.progress import LiveCount

_DIGITS = 5  # of a shard's number in file names
# Share of a shard's deadline after which the remaining images are no longer decoded. The rows
# fetched until then are kept, because the shard still finishes in time.
_DECODE_SHARE = 0.75
_MIN_CPU_S, _CPU_S_PER_MEGAPIXEL = 5.0, 0.2  # enough for slow machines and the slowest formats
_MIN_MEMORY, _BYTES_PER_PIXEL = 256 << 20, 16


class BrokenShard(StageFailed):
    """A shard whose files are damaged or contradict each other."""


@dataclass(slots=True)
class ShardDownloader:
    """Downloads one shard at a time. Each process loads img2dataset once."""

    config: DownloadConfig
    out: Path
    proxy: str
    _opener: Opener = field(init=False)
    _decode: Isolated[tuple[Resized, dict[str, str]]] = field(init=False)
    _requested: LiveCount = field(init=False)  # of the current shard, as what follows
    _hashes: dict[str, str] = field(init=False, default_factory=dict)  # as in SquareResizer
    _decode_until: float = field(init=False, default=math.inf)
    _shortage: Shortage | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        raise_descriptor_limit()  # a worker of a cluster or server did not inherit it
        config = self.config
        self._opener = opener_for(config, self.proxy)
        resizer = SquareResizer(
            edge=config.image_size,
            encode_format=config.image_format,
            quality=config.jpeg_quality,
            min_side=config.image_size if config.min_image_size is None else config.min_image_size,
            max_pixels=config.max_pixels_m * 1e6,
            max_aspect_ratio=config.max_aspect_ratio,
            hashes=None if config.near_duplicate_bits is None else {},
        )
        self._decode = Isolated(resizer.of_body, _budget_of(config))

    def __call__(self, shard: UrlShard) -> Shard:
        """Fetch a shard and put its files in place: tar, parquet and, last, the receipt. A shard
        whose files contradict each other is fetched a second time."""
        self._decode_until = time.monotonic() + _DECODE_SHARE * self.config.shard_deadline_s
        try:
            return self._counted_fetch(shard)
        except BrokenShard:
            return self._counted_fetch(shard)

    def _counted_fetch(self, shard: UrlShard) -> Shard:
        with LiveCount(self.out, shard.name) as self._requested:
            return self._fetch(shard)

    def _fetch(self, shard: UrlShard) -> Shard:
        scratch = self.out / f".{shard.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with plain_path(scratch) as folder:
            self._run_img2dataset(shard, folder)
        try:
            rows = self._with_hashes(
                parquet.read_table(scratch / f"{shard.name}.parquet").sort_by("key")
            )
            packed = repack_sorted(scratch / f"{shard.name}.tar", scratch / "sorted.tar")
            reported = json.loads(
                (scratch / f"{shard.name}_stats.json").read_text(encoding="utf-8")
            )["successes"]
        except (tarfile.TarError, pa.ArrowException, ValueError) as error:
            raise self._broken(shard, str(error)) from error
        failed = Counter(
            row["error_message"] for row in rows.to_pylist() if row["status"] != "success"
        )
        succeeded = rows.num_rows - failed.total()
        if not packed == succeeded == reported:
            raise self._broken(
                shard,
                f"{packed} images in its tar, {succeeded} in its table, {reported} in its stats",
            )
        if unaccounted := shard.pairs.num_rows - rows.num_rows:
            failed[LOST] += unaccounted
        return self._finish(shard, scratch, rows, succeeded, failed)

    def _broken(self, shard: UrlShard, how: str) -> BrokenShard:
        return BrokenShard(
            f"download: the files of shard {shard.name} were damaged in two tries: {how}; check "
            f"whether the disk of {self.out} is full or failing. Finished shards are kept: run the "
            "same command to resume"
        )

    def _with_hashes(self, rows: pa.Table) -> pa.Table:
        """img2dataset's table with the perceptual hash of each image, or "" if it has none."""
        column = pa.array(
            [self._hashes.get(digest, "") for digest in rows["sha256"].to_pylist()], pa.string()
        )
        self._hashes.clear()
        return rows.append_column("look", column)

    def _finish(
        self, shard: UrlShard, scratch: Path, rows: pa.Table, succeeded: int, failed: Counter[str]
    ) -> Shard:
        parquet.write_table(rows, scratch / "sorted.parquet", compression="zstd")
        tar, table = self.out / f"{shard.name}.tar", self.out / f"{shard.name}.parquet"
        put_in_place(scratch / "sorted.tar", tar)
        put_in_place(scratch / "sorted.parquet", table)
        receipt = Shard(
            name=shard.name,
            rows=succeeded,
            digest=file_digest(tar),
            files=file_records([tar, table]),
            recipe=recipe_of(shard, self.config),
            figures=ImageShardFigures(failed=dict(failed.most_common())).model_dump(mode="json"),
        )
        write_receipt(self.out, receipt)
        shutil.rmtree(scratch)
        return receipt

    def _run_img2dataset(self, shard: UrlShard, scratch: Path) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or its import contacts a package index
        tempfile.tempdir = str(scratch)  # its import creates folders that would outlive a worker
        try:
            from img2dataset.downloader import Downloader
            from img2dataset.writer import WebDatasetSampleWriter
        finally:
            tempfile.tempdir = None

        # This is never undone, because a thread of img2dataset that outlives its shard must not get
        # urllib's own opener. Only its `open` is called.
        counting = CountingOpener(self._opener, self._requested)
        urllib.request.install_opener(counting)  # type: ignore[arg-type]
        try:
            self._decode.start()  # before connections use up the descriptors
        except Shortage as shortage:
            raise _shortage_failure(shortage) from shortage
        self._opener.start_shard(shard.pairs["url"].to_pylist())
        feather = scratch / "pairs.feather"
        with ipc.new_file(feather, shard.pairs.schema) as writer:
            writer.write_table(shard.pairs)
        downloader = Downloader(
            sample_writer_class=WebDatasetSampleWriter,
            resizer=self._resize,
            thread_count=self._opener.threads,
            save_caption=True,
            extract_exif=False,
            output_folder=str(scratch),
            column_list=shard.pairs.column_names,
            timeout=None,
            number_sample_per_shard=self.config.shard_size,
            oom_shard_count=_DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format=self.config.image_format,
            retries=0,
            user_agent_token=USER_AGENT_TOKEN,
            disallowed_header_directives=None,
        )  # the opener handles timeouts, retries and opt-outs
        # It prints a traceback for each image that does not fit on a full disk. That some are lost
        # is noticed when the counts are compared.
        with (
            Path(os.devnull).open("w", encoding="utf-8") as null,
            redirect_stdout(null),
            redirect_stderr(null),
        ):
            try:
                downloader.download_shard((shard.number, str(feather)))
            finally:
                self._opener.end_shard()
        # img2dataset would count these as failed rows.
        if lacking := self._shortage or self._opener.shortage:
            raise _shortage_failure(lacking)

    def _resize(self, stream: io.BytesIO, _boxes: object = None) -> Resized:
        """Resize one file for img2dataset, one at a time, and allocate no more for its body."""
        try:
            if self._shortage or time.monotonic() > self._decode_until:
                return _refused(NO_TIME_LEFT)
            with stream.getbuffer() as body:
                resized, hashes = self._decode(body)
            self._hashes |= hashes
            return resized
        except Refused as cause:
            return _refused(str(cause))
        except Shortage as shortage:
            self._shortage = shortage
            return _refused(str(shortage))
        finally:
            self._opener.forget_body(stream.seek(0, io.SEEK_END))


def _refused(cause: str) -> Resized:
    return None, None, None, None, None, cause


def _budget_of(config: DownloadConfig) -> Budget:
    """The budget of one image: far more than an ordinary image of the largest size needs, and a
    small part of the shard's deadline."""
    cpu_s = _MIN_CPU_S + config.max_pixels_m * _CPU_S_PER_MEGAPIXEL
    cpu_s = min(cpu_s, config.shard_deadline_s / 10)
    return Budget(cpu_s, _MIN_MEMORY + round(config.max_pixels_m * 1e6) * _BYTES_PER_PIXEL)


def _shortage_failure(shortage: Shortage | str) -> StageFailed:
    """The error for a shard that failed because this machine ran out of something."""
    return StageFailed(
        f"download: {shortage}. Finished shards are kept: run the same command to resume"
    )
