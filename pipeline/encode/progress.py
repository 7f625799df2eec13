"""Progress of an encoding: images per second and time left."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field

from data_catalog.storage.receipts import Shard
from pipeline.stages.contract import Tracker
from pipeline.stages.progress import Pace


@dataclass(slots=True)
class EncodeProgress:
    """The progress line and the metrics of a running encoding."""

    track: Tracker
    rows: Mapping[str, int]  # image shard -> images in it
    done: Mapping[str, Shard]  # encoded shards; the stage adds to them
    _shown: int = 0
    _pace: Pace = field(default_factory=Pace)

    def resume(self, own: Sized) -> None:
        """Count the finished shards, and say which part of them an earlier run of this output
        finished."""
        self._shown = self._finished
        if 0 < len(own) < len(self.rows):
            self.track.note(f"resumed with {len(own)} of {len(self.rows)} shards")
        self._log()
        if len(self.done) < len(self.rows):
            self.track.progress(0, 0, "loading the encoders")

    def finished(self) -> None:
        """Report the totals after a shard."""
        self._log()
        self.show(0)

    def show(self, unfinished: int, _note: str = "") -> None:
        """Show the images of finished shards, and those that unfinished ones have encoded."""
        # A shard that has just ended is counted neither way for a moment.
        self._shown = max(self._shown, self._finished + unfinished)
        total = sum(self.rows.values())
        shards = f"{len(self.done)} of {len(self.rows)} shards"
        pace = self._pace.describe(self._shown, total, "images")
        self.track.progress(self._shown, total, "  ".join(filter(None, (shards, pace))))

    @property
    def _finished(self) -> int:
        # Of a copy: another thread shows this while shards are added.
        return sum(self.rows[name] for name in tuple(self.done))

    def _log(self) -> None:
        encoded = sum(shard.rows for shard in self.done.values())
        self.track.metrics({"encoded": encoded}, step=len(self.done))
