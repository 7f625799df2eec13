"""What a person reads of a running encoding."""

from __future__ import annotations

from data_catalog.storage.receipts import Shard
from pipeline.encode.progress import EncodeProgress
from tests.support.tracker import RememberingTracker

ROWS = {"00000": 100, "00001": 100, "00002": 50}


def finished(name: str) -> Shard:
    return Shard(name=name, rows=ROWS[name] - 1, digest="", files={})  # one image was excluded


def test_a_resumed_encoding_says_how_many_shards_are_finished() -> None:
    track, done = RememberingTracker(), {"00000": finished("00000")}
    progress = EncodeProgress(track, ROWS, done)
    progress.resume(done)
    assert track.notes == ["resumed with 1 of 3 shards"]
    assert track.shown == [(0, 0, "loading the encoders")]


def test_one_that_begins_or_has_nothing_to_do_says_no_such_thing() -> None:
    for names in ([], list(ROWS)):
        track, done = RememberingTracker(), {name: finished(name) for name in names}
        EncodeProgress(track, ROWS, done).resume(done)
        assert not track.notes


def test_images_of_unfinished_shards_count_and_the_bar_never_goes_back() -> None:
    track, done = RememberingTracker(), {"00000": finished("00000")}
    progress = EncodeProgress(track, ROWS, done)
    progress.resume({})  # the shard is of another output
    progress.show(64)
    progress.show(0)  # the shard has ended, and its receipt is on its way
    done["00001"] = finished("00001")
    progress.finished()
    assert [(shown, total) for shown, total, _ in track.shown[1:]] == [
        (164, 250),
        (164, 250),
        (200, 250),
    ]
    assert track.shown[-1][2].startswith("2 of 3 shards")
    assert track.heard[-1] == (2, {"encoded": 198})
