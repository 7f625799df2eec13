"""Progress of a download: images per second, success rate and time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_catalog.figures import ImageShardFigures
from data_catalog.storage.receipts import Shard
from pipeline.stages.contract import Tracker
from pipeline.stages.progress import Pace


@dataclass(slots=True)
class DownloadProgress:
    """The progress line and the metrics of a running download."""

    track: Tracker
    rows: int  # rows of the table to fetch
    _fetched: int = 0  # images that this run fetched
    _requested: int = 0  # URLs that this run requested
    _before: int = 0  # rows of shards that were finished before, or in another output
    _success: str = ""
    _shown: int = 0
    _pace: Pace = field(default_factory=Pace)
    _failed: dict[str, int] = field(default_factory=dict)  # shard -> rows that failed
    _started: float = field(default_factory=time.monotonic)

    def resume(self, shards: Sequence[Shard], shard_size: int) -> None:
        """Count the shards that an earlier run of this output finished, and say so."""
        self._before = sum(shard.rows + self._failed_of(shard) for shard in shards)
        if shards:
            of = max(len(shards), -(-self.rows // shard_size))
            images = sum(shard.rows for shard in shards)
            self.track.note(
                f"resumed with {len(shards)} of about {of} shards: {images:,} images are here"
            )
        self.track.progress(0, 0, "starting the workers")

    def finished(self, receipt: Shard, done: dict[str, Shard]) -> None:
        """Add a fetched shard to `done` and report the totals."""
        done[receipt.name] = receipt
        self._fetched += receipt.rows
        images = sum(shard.rows for shard in done.values())
        failed = sum(self._failed_of(shard) for shard in done.values())
        requested = images + failed
        self._requested += receipt.rows + self._failed_of(receipt)
        self._before = requested - self._requested
        self._success = f"{images / max(requested, 1):.1%} successful"
        self.show(0)
        self.track.metrics(
            {"pictures": images, "failed": failed, "images_per_s": self.images_per_s},
            step=len(done),
        )

    def show(self, unfinished: int, _note: str = "") -> None:
        """Show the rows of finished shards, and those that unfinished ones have requested."""
        # A shard that has just ended is counted neither way for a moment.
        self._shown = max(self._shown, self._before + self._requested + unfinished)
        total = max(self.rows, self._shown)
        pace = self._pace.describe(self._shown, total, "rows")
        self.track.progress(self._shown, total, "  ".join(filter(None, (self._success, pace))))

    def _failed_of(self, shard: Shard) -> int:
        if shard.name not in self._failed:
            self._failed[shard.name] = sum(ImageShardFigures.of(shard).failed.values())
        return self._failed[shard.name]

    @property
    def images_per_s(self) -> float:
        """Images per second in this run."""
        return round(self._fetched / max(time.monotonic() - self._started, 1e-9), 1)
