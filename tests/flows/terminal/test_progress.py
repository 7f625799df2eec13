"""What the progress of a stage leaves in a log."""

from __future__ import annotations

import pytest

from flows.terminal.progress import Progress


def test_a_log_has_each_line_that_stays_and_some_of_the_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("flows.terminal.progress.time.monotonic", lambda: now[0])
    lines: list[str] = []
    with Progress("train", lines.append) as show:
        for step in range(1, 11):
            now[0] += 10
            show.update(step, 10, f"loss {1 / step:.2f}")
        show.finish("108 rows in 100 s")
    assert lines == [
        *("4/10  loss 0.25", "8/10  loss 0.12"),
        "108 rows in 100 s",
    ]
