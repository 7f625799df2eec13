"""Progress of a download: images per second, success rate and time left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from data_catalog.figures import ImageShardFigures
from data_catalog.storage.receipts import Shard
from pipeline.stages.contract import Tracker


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )


@dataclass(slots=True)
class DownloadProgress:
    """The progress line and the metrics of a running download."""

    track: Tracker
    rows: int  # rows of the table to fetch
    _fetched: int = 0  # images that this run fetched
    _requested: int = 0  # URLs that this run requested
    _failed: dict[str, int] = field(default_factory=dict)  # shard -> rows that failed
    _started: float = field(default_factory=time.monotonic)

    def finished(self, receipt: Shard, done: dict[str, Shard]) -> None:
        """Add a fetched shard to `done` and report the totals."""
        done[receipt.name] = receipt
        self._fetched += receipt.rows
        images = sum(shard.rows for shard in done.values())
        failed = sum(self._failed_of(shard) for shard in done.values())
        requested = images + failed
        self._requested += receipt.rows + self._failed_of(receipt)
        left_s = (
            (self.rows - requested) * (time.monotonic() - self._started) / self._requested
            if self._requested
            else 0
        )
        success = f"{images / max(requested, 1):.1%} successful"
        note = f"{self.images_per_s:.0f} images/s  {success}  ETA {_clock(left_s)}"
        self.track.progress(requested, max(self.rows, requested), note)
        self.track.metrics(
            {"pictures": images, "failed": failed, "images_per_s": self.images_per_s},
            step=len(done),
        )

    def _failed_of(self, shard: Shard) -> int:
        if shard.name not in self._failed:
            self._failed[shard.name] = sum(ImageShardFigures.of(shard).failed.values())
        return self._failed[shard.name]

    @property
    def images_per_s(self) -> float:
        """Images per second in this run."""
        return round(self._fetched / max(time.monotonic() - self._started, 1e-9), 1)
