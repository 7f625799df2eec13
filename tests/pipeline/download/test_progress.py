"""What a person reads of a running download."""

from __future__ import annotations

from data_catalog.figures import ImageShardFigures
from data_catalog.storage.receipts import Shard
from pipeline.download.progress import DownloadProgress
from tests.support.tracker import RememberingTracker


def shard(name: str, rows: int, failed: int) -> Shard:
    figures = ImageShardFigures(failed={"timed out": failed}).model_dump(mode="json")
    return Shard(name=name, rows=rows, digest="", files={}, figures=figures)


def test_a_resumed_download_begins_with_the_rows_of_its_finished_shards() -> None:
    track, first = RememberingTracker(), shard("00000", 90, 10)
    progress = DownloadProgress(track, rows=1000)
    progress.resume([first], shard_size=100)
    assert track.notes == ["resumed with 1 of about 10 shards: 90 images are here"]
    progress.show(30)
    progress.show(0)  # the shard has ended, and its receipt is on its way
    done = {"00000": first}
    progress.finished(shard("00001", 100, 0), done)
    progress.show(7)
    assert [(requested, total) for requested, total, _ in track.shown] == [
        (0, 0),
        (130, 1000),
        (130, 1000),
        (200, 1000),
        (207, 1000),
    ]
    assert track.shown[-1][2].startswith("95.0% successful")


def test_a_new_one_says_no_such_thing() -> None:
    track = RememberingTracker()
    DownloadProgress(track, rows=1000).resume([], shard_size=100)
    assert not track.notes
    assert track.shown == [(0, 0, "starting the workers")]
