"""How often previews are made, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.serving.previews import PreviewPace


@pytest.mark.parametrize(("cost_s", "most"), [(0.001, 19), (0.5, 4), (30, 1)])
def test_previews_take_a_tenth_of_the_time_at_most(cost_s: float, most: int) -> None:
    now = 0.0

    def decode() -> Sequence[NDArray[np.uint8]]:
        nonlocal now
        now += cost_s
        return [np.zeros((1, 1, 1, 3), np.uint8)]

    pace, count = PreviewPace(lambda: now), 0
    for _ in range(2):  # batches, of 10 s without previews
        pace.begin_batch()
        for _ in range(100):
            count += pace.make(decode) is not None
            now += 0.1
    assert 1 <= count <= most, "and a costly one is made but once"
