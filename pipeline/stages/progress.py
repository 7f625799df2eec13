"""Progress within a long unit of work: counts that its process keeps in a file, which the stage
reads; speed, and the time left."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

_FOLDER = ".counts"  # hidden, so that it is no file of the output
_EVERY_S = 1.0
_LEAST_S = 2.0  # before a speed is an estimate


@dataclass(slots=True)
class LiveCount:
    """How much of one unit of work is done: of a shard the rows, of a training the steps. It is
    only shown, so nothing fails if it cannot be written."""

    out: Path
    unit: str  # which shard, for example
    _done: int = 0
    _written_at: float = -_EVERY_S
    _has_ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int = 1) -> None:
        """Count what a thread has done, unless the unit has ended without waiting for it."""
        with self._lock:
            self._done += count
            if self.is_due() and not self._has_ended:
                self.write(self._done)

    def is_due(self) -> bool:
        """Whether the last one was written a while ago."""
        return time.monotonic() - self._written_at >= _EVERY_S

    def write(self, done: int, note: str = "") -> None:
        """Write a count, with a note to show beside it."""
        self._written_at = time.monotonic()
        with suppress(OSError):
            self._path.write_text(json.dumps([done, note]), encoding="utf-8")

    @property
    def _path(self) -> Path:
        return self.out / _FOLDER / self.unit

    def __enter__(self) -> LiveCount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._lock:
            self._has_ended = True
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


@contextmanager
def watch_counts(out: Path, show: Callable[[int, str], None]) -> Iterator[None]:
    """For the length of the block, call `show` from a thread with the sum of all counts and the
    last of their notes, about once a second where they have changed."""
    folder, ended = out / _FOLDER, threading.Event()
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    with suppress(OSError):
        folder.mkdir()  # without parents: an output that was removed is not created again

    def follow() -> None:
        before = (0, "")
        while not ended.wait(_EVERY_S):
            counts = _read_counts(folder)
            if counts != before:
                before = counts
                show(*counts)

    thread = threading.Thread(target=follow, name="counts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def _read_counts(folder: Path) -> tuple[int, str]:
    """The sum of the counts, and a note. A file that is being written is left out."""
    total, note = 0, ""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError, ValueError):
                count, beside = json.loads(path.read_text(encoding="utf-8"))
                total, note = total + count, beside or note
    return total, note


@dataclass(slots=True)
class Pace:
    """The speed of work and the time left, measured from its first count on, so that the start of
    processes does not count."""

    _first: tuple[float, int] | None = None  # time, and how much was done

    def describe(self, done: int, total: int, unit: str) -> str:
        """The speed and the time left: `12 images/s  ETA 1:05`; nothing in the first seconds."""
        now = time.monotonic()
        started, before = self._first = self._first or (now, done)
        if now - started < _LEAST_S or done <= before:
            return ""
        speed = (done - before) / (now - started)
        return f"{speed:.{0 if speed >= 10 else 1}f} {unit}/s  ETA {_clock((total - done) / speed)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"
