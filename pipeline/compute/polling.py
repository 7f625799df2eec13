"""Polling: waiting for a condition, up to a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], object], timeout_s: float, every_s: float) -> bool:
    """Call the predicate every `every_s` seconds until it holds. Returns False if it does not hold
    when the time is up; it is called at least once."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True
