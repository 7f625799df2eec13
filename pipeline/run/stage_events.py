"""Events of a run for a callback: progress, metrics, images and what is said of each stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

EventKind = Literal[
    "started", "progress", "metrics", "image", "artifact", "note", "warning", "finished", "fresh"
]
_PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class StageEvent:
    """One event of a stage. As text it is a line for people, so `print` is a callback."""

    stage: str
    """Its name among the outputs, such as "train"."""
    kind: EventKind
    text: str = ""
    """What is said; of an image its name, such as "samples"."""
    path: Path | None = None
    """Of an image or artifact its file; where a stage starts or ends its folder."""
    step: int = 0
    """Of metrics and images."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Of metrics."""
    done: int = 0
    total: int = 0
    """Of progress, about once a second; 0 if the work is not counted, and `text` names it."""

    def __str__(self) -> str:
        return f"{self.stage:9} {self._line()}"

    def _line(self) -> str:
        match self.kind:
            case "progress" if self.total:
                share = f"{self.done:,}/{self.total:,} ({self.done / self.total:.0%})"
                return f"{share}  {self.text}".rstrip()
            case "metrics":
                values = (f"{name} {value:.4g}" for name, value in self.values.items())
                return f"step {self.step}  {'  '.join(values)}"
            case "image":
                return f"{self.text} of step {self.step}: {self.path}"
            case "artifact":
                return f"made {self.path}"
            case "warning":
                return f"warning: {self.text}"
            case "started" | "finished" | "fresh":
                return f"{' '.join(filter(None, (self.kind, self.text)))}: {self.path}"
        return self.text


OnEvent = Callable[[StageEvent], None]


@dataclass(slots=True)
class EventSender:
    """Calls a callback with one event at a time, from whatever thread it comes, and leaves out
    progress that comes too soon after other progress. What the callback raises in a thread of a
    stage is raised at the next event of the thread that made this."""

    on_event: OnEvent
    _caller: int = field(default_factory=threading.get_ident)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _problem: Exception | None = None
    _progress_at: float = -_PROGRESS_EVERY_S

    def __call__(self, event: StageEvent) -> None:
        is_caller = threading.get_ident() == self._caller
        with self._lock:
            if self._problem and is_caller:
                problem, self._problem = self._problem, None
                raise problem
            if self._problem or self._is_too_soon(event):
                return
            try:
                self.on_event(event)
            except Exception as error:
                if is_caller:
                    raise
                self._problem = error

    def _is_too_soon(self, event: StageEvent) -> bool:
        if event.kind != "progress" or event.done == event.total:  # also of what is not counted
            return False
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_EVERY_S:
            return True
        self._progress_at = now
        return False


@dataclass(frozen=True, slots=True)
class EventTracker:
    """The Tracker of one stage that makes an event of each report."""

    stage: str
    send: OnEvent
    run_id: str = ""  # nothing else records the run

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.send(StageEvent(self.stage, "metrics", values=dict(values), step=step))

    def artifact(self, path: Path, folder: str = "") -> None:
        self.send(StageEvent(self.stage, "artifact", folder, path))

    def image(self, path: Path, name: str, step: int) -> None:
        self.send(StageEvent(self.stage, "image", name, path, step))

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.send(StageEvent(self.stage, "progress", note, done=done, total=total))

    def note(self, text: str) -> None:
        self.send(StageEvent(self.stage, "note", text))

    def warning(self, text: str) -> None:
        self.send(StageEvent(self.stage, "warning", text))
