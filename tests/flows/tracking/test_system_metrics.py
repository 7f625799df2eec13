"""A stage's run shows what it asked of its machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from flows.tracking import system_metrics
from tests.support.tracker import RememberingTracker


class Waking(RememberingTracker):
    """Says when it has heard three samples."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = threading.Event()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == 2:
            self.enough.set()


def test_samples_come_for_as_long_as_a_stage_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "_INTERVAL_S", 0.01)
    track = Waking()
    with system_metrics.watched(track):
        assert track.enough.wait(60)
    heard = len(track.heard)
    assert "system metrics" not in [thread.name for thread in threading.enumerate()]
    assert [step for step, _ in track.heard] == list(range(heard))
    for _, values in track.heard:
        assert 0 <= values["system/cpu_utilization_percentage"] <= 100
        assert values["system/system_memory_usage_megabytes"] > 100
        assert {"system/disk_available_megabytes", "system/network_receive_megabytes"} <= set(
            values
        )


def test_the_shortest_stage_has_a_sample() -> None:
    track = RememberingTracker()
    with system_metrics.watched(track):
        pass
    assert [step for step, _ in track.heard] == [0]
