"""Curves of block characters."""

from __future__ import annotations

import math

from flows.terminal.sparkline import sparkline


def test_a_curve_rises_and_falls() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([8, 0]) == "█▁"
    assert sparkline([5, 5, 5]) == "▁▁▁"


def test_many_values_are_averaged() -> None:
    assert sparkline(range(1000), 4) == "▁▃▆█"
    assert len(sparkline(range(41), 40)) == 40


def test_what_is_no_number_leaves_a_gap() -> None:
    assert sparkline([0, math.nan, 7]) == "▁·█"
    assert sparkline([math.inf]) == "·"
    assert sparkline([]) == ""
