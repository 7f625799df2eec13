"""Durations as people say them."""

from __future__ import annotations

import pytest

from flows.terminal.duration import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3569, "59 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (24 * 3600, "24 h"),
        (100 * 3600, "100 h"),
    ],
)
def test_a_duration_is_in_the_unit_that_people_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
