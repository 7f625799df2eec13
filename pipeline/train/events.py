"""The event log of a training: one JSON object per line."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_catalog.model_files import EVENTS_FILE, read_events
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import flush, link_or_copy, write_atomically
from data_catalog.storage.object_access import ObjectStorageError
from pipeline.stages.progress import LiveCount, Pace

SCORES = "best"  # the field that marks an event as the scores of a step
_EARLIER_EVENTS_FILE = "events.before.jsonl"


def set_events_aside(out: Path) -> None:
    """Move the events of earlier processes to another file, of repeated events the latest, and
    start a new log."""
    _write_earlier(out, _all_events(out))
    (out / EVENTS_FILE).unlink(missing_ok=True)


def copy_history(other: Path, out: Path, step: int) -> None:
    """Make the events of another training up to a step the earlier events of this one, and link its
    grids of samples. A grid that is gone is left out."""
    _write_earlier(
        out,
        [
            event
            for event in _all_events(other)
            if event["step"] <= step
            and (event["kind"] == "metrics" or _link_grid(event, other, out))
        ],
    )


def scored_events(out: Path) -> list[dict[str, Any]]:
    """The scores of steps among the earlier events of a training."""
    return [event for event in read_events(out / _EARLIER_EVENTS_FILE) if SCORES in event]


def _link_grid(event: dict[str, Any], other: Path, out: Path) -> bool:
    """Link the file of an artifact event, unless it is gone. Returns whether it is there now."""
    path = Path("samples") / Path(event.get("path", "")).name
    if str(path) != event.get("path"):
        return False
    (out / "samples").mkdir(exist_ok=True)
    try:
        link_or_copy(ensure_local(other / path), out / path)
    except (OSError, ObjectStorageError):
        return False
    return True


def _all_events(out: Path) -> list[dict[str, Any]]:
    """The events of all processes of a training, of repeated events the latest. The newest file is
    read first, because a process that starts meanwhile moves its events to the other."""
    newest, earlier = (
        read_events(ensure_local(out / name)) for name in (EVENTS_FILE, _EARLIER_EVENTS_FILE)
    )
    return list({_about(event): event for event in (*earlier, *newest)}.values())


def _write_earlier(out: Path, events: list[dict[str, Any]]) -> None:
    write_atomically(
        out / _EARLIER_EVENTS_FILE, "".join(json.dumps(event) + "\n" for event in events)
    )


def _about(event: dict[str, Any]) -> tuple[Any, ...]:
    """The identity of an event: of two events with the same one, the later counts."""
    return (event["kind"], event["step"], event.get("path"), *event.get("values", ()))


@dataclass(slots=True)
class EventLog:
    """Writes the events of a training process and measures its speed. It is enabled only on the
    leading rank."""

    out: Path
    total: int
    batch_size: int
    enabled: bool = True
    _started: float = field(default_factory=time.monotonic)
    _first_step: int = 0
    _logged: set[tuple[int, str]] = field(default_factory=set)
    _last_loss: str = ""
    _pace: Pace = field(default_factory=Pace)
    _live: LiveCount = field(init=False)
    scored: list[dict[str, Any]] = field(default_factory=list)  # events of earlier processes

    def __post_init__(self) -> None:
        self._live = LiveCount(self.out, "steps")

    def resume_at(self, step: int) -> None:
        """Copy the events of earlier processes up to this step into the new log. Speed is measured
        from here."""
        self._first_step, self._started = step, time.monotonic()
        for event in read_events(self.out / _EARLIER_EVENTS_FILE):
            if event["step"] <= step:
                self.write(**event)
                self._logged |= {
                    (event["step"], what)
                    for what in (*event.get("values", ()), event.get("path", ""))
                }
                if SCORES in event:
                    self.scored.append(event)
                    self._logged.add((event["step"], SCORES))

    def already_logged(self, step: int, what: str) -> bool:
        """Whether an earlier process logged this metric or file for a step, or its scores."""
        return (step, what) in self._logged

    def write_scores(self, step: int, values: dict[str, float], best: object) -> None:
        """Append the scores of a step and, if they are the best so far, the file of its average.
        A checkpoint that follows relies on them, so they survive a power cut."""
        self.write(kind="metrics", step=step, values=values, best=best)
        if self.enabled:
            flush(self.out / EVENTS_FILE)

    def write(self, **event: Any) -> None:
        """Append an event."""
        if self.enabled:
            with (self.out / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    def warn(self, text: str) -> None:
        """Append a warning."""
        self.write(kind="warning", text=text)

    def note(self, text: str) -> None:
        """Append what is done before the first step."""
        self.write(kind="phase", note=text)

    def progress(self, step: int, text: str) -> None:
        """Append the progress of the training, with a message."""
        self.write(kind="progress", done=step, total=self.total, note=text)

    def write_step(self, step: int, loss: float, gradient_norm: float, lr: float) -> None:
        """Append the metrics of a step, and the progress with the remaining time."""
        speed = (step - self._first_step) * self.batch_size / (time.monotonic() - self._started)
        values = {"loss": loss, "lr": lr, "gradient_norm": gradient_norm, "images_per_s": speed}
        self.write(kind="metrics", step=step, values=values)
        self._last_loss = f"loss {loss:.4f}"
        self.progress(step, self._describe(step))

    def show_step(self, step: int) -> None:
        """Show a step, with the loss that was read last, about once a second. It is not logged, and
        nothing waits for the device."""
        if self.enabled and self._live.is_due():
            self._live.write(step, self._describe(step))

    def _describe(self, step: int) -> str:
        pace = self._pace.describe(step * self.batch_size, self.total * self.batch_size, "images")
        return "  ".join(filter(None, (self._last_loss, pace)))
