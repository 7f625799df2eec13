"""Sizes as text."""

from __future__ import annotations

import pytest

from flows.terminal.size import size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (12.34e9, "12.3 GB"),
        (2e15, "2,000.0 TB"),
    ],
)
def test_a_size_has_the_unit_that_people_would_use(count: float, text: str) -> None:
    assert size(count) == text
