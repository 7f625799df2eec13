"""Counts of unfinished work, and estimates of the time left."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.compute.polling import wait_until
from pipeline.stages import progress
from pipeline.stages.progress import LiveCount, Pace, watch_counts


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0.02)


def test_counts_of_several_workers_are_added_up(tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []
    with watch_counts(tmp_path, lambda *count: shown.append(count)):
        with LiveCount(tmp_path, "00000") as first, LiveCount(tmp_path, "00001") as second:
            first.add(3)
            second.add(4)
            assert wait_until(lambda: (7, "") in shown, 5, every_s=0.01)
        second.write(5, "loss 0.5")
        assert wait_until(lambda: (5, "loss 0.5") in shown, 5, every_s=0.01)
    assert not list(tmp_path.iterdir()), "nothing is left in the output"


def test_a_thread_that_outlives_its_unit_leaves_no_count(tmp_path: Path) -> None:
    with watch_counts(tmp_path, lambda *_: None):
        with LiveCount(tmp_path, "00000") as late:
            late.add()
        late._written_at = -1.0
        late.add()
        assert not list((tmp_path / ".counts").iterdir())


def test_what_a_killed_process_counted_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".counts").mkdir()
    LiveCount(tmp_path, "00000").add(1000)
    shown: list[tuple[int, str]] = []
    with watch_counts(tmp_path, lambda *count: shown.append(count)):
        LiveCount(tmp_path, "00001").add()
        assert wait_until(lambda: bool(shown), 5, every_s=0.01)
    assert shown == [(1, "")]


def test_a_count_that_cannot_be_written_or_read_stops_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with watch_counts(gone, lambda *_: None), LiveCount(gone, "00000") as count:
        count.add()
    assert not gone.exists(), "an output that was removed is not created again"
    (tmp_path / ".counts").mkdir()
    (tmp_path / ".counts/00000").write_text('[1, "lo')
    assert progress._read_counts(tmp_path / ".counts") == (0, "")


def test_speed_and_time_left_are_those_since_the_first_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("pipeline.stages.progress.time.monotonic", lambda: now)
    pace = Pace()
    assert pace.describe(100, 1000, "rows") == ""  # of which 100 were there before
    now += 1
    assert pace.describe(300, 1000, "rows") == "", "too early to tell"
    now += 9
    assert pace.describe(300, 1000, "rows") == "20 rows/s  ETA 0:35"
    now += 90
    assert pace.describe(310, 1000, "rows") == "2.1 rows/s  ETA 5:29"
    now += 900
    assert pace.describe(200, 1000, "rows") == "0.1 rows/s  ETA 2:13:20"
