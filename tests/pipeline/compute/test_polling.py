"""Waiting for a condition ends with the condition or with the time, whichever is first."""

from __future__ import annotations

import time

import pytest

from pipeline.compute.polling import wait_until


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.checked_at: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def holds_after(self, seconds: float) -> bool:
        self.checked_at.append(self.now - 100)
        return self.now - 100 >= seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("holds_after_s", "timeout_s", "expected", "checked_at"),
    [
        (0, 10, True, [0]),
        (0, 0, True, [0]),
        (2, 10, True, [0, 1, 2]),
        (3, 3, True, [0, 1, 2, 3]),
        (4, 3, False, [0, 1, 2, 3]),
        (1, 0, False, [0]),
    ],
)
def test_it_asks_until_the_condition_holds_or_the_time_is_up(
    clock: Clock, holds_after_s: float, timeout_s: float, expected: bool, checked_at: list[float]
) -> None:
    assert wait_until(lambda: clock.holds_after(holds_after_s), timeout_s, every_s=1) is expected
    assert clock.checked_at == checked_at


def test_an_error_of_the_condition_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, timeout_s=10, every_s=1)
