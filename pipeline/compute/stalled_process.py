"""Detection of stalled processes: neither the process nor its descendants use the CPU.

A process stalls, for example, when there is no memory for a thread that it starts: Python waits for
that thread for ever.
"""

from __future__ import annotations

import time

import psutil

# Share of the time since the last check that counts as activity. Watching the parent process
# (parent_watch.py) uses a tenth of it.
_MIN_USE = 0.01


class Standstill:
    """How long a process has been idle. Check it every few seconds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._checked_at = self._active_at = time.monotonic()
        self._used = _processor_seconds(pid)

    def seconds(self) -> float:
        """Seconds since the last check that found activity."""
        now, used = time.monotonic(), _processor_seconds(self._pid)
        if used - self._used > _MIN_USE * (now - self._checked_at):
            self._active_at = now
        self._checked_at, self._used = now, used
        return now - self._active_at


def _processor_seconds(pid: int) -> float:
    """CPU time of a process and its descendants so far, including those that have ended and were
    waited for."""
    try:
        process = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:4]) for one in [process, *process.children(recursive=True)])
    except psutil.Error:  # it has just ended
        return 0.0
