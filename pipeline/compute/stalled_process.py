"""Whether a process stands still: neither it nor what it started uses the processor. Such is one
that wanted a thread and had no memory for it: Python waits for that thread for ever. Knows nothing
of work.
"""

from __future__ import annotations

import time

import psutil

_MIN_USE = (
    0.01  # of the time since the last look; the watch for a parent's end takes a tenth of that
)


class Standstill:
    """How long a process has done nothing, for one who looks every few seconds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._checked_at = self._active_at = time.monotonic()
        self._used = _processor_seconds(pid)

    def seconds(self) -> float:
        """Since the last look before which it did something."""
        now, used = time.monotonic(), _processor_seconds(self._pid)
        if used - self._used > _MIN_USE * (now - self._checked_at):
            self._active_at = now
        self._checked_at, self._used = now, used
        return now - self._active_at


def _processor_seconds(pid: int) -> float:
    """What a process and all below it have used so far; those that have ended count where they were
    waited for."""
    try:
        process = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:4]) for one in [process, *process.children(recursive=True)])
    except psutil.Error:  # it ends just now
        return 0.0
