"""The event log of a training: one JSON object per line."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_catalog.model_files import EVENTS_FILE, read_events
from data_catalog.storage.files import write_atomically

_EARLIER_EVENTS_FILE = "events.before.jsonl"


def set_events_aside(out: Path) -> None:
    """Move the events of earlier processes to another file, of repeated events the latest, and
    start a new log."""
    events = {
        _about(event): event
        for name in (_EARLIER_EVENTS_FILE, EVENTS_FILE)
        for event in read_events(out / name)
    }
    write_atomically(
        out / _EARLIER_EVENTS_FILE, "".join(json.dumps(event) + "\n" for event in events.values())
    )
    (out / EVENTS_FILE).unlink(missing_ok=True)


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

    def resume_at(self, step: int) -> None:
        """Copy the events of earlier processes up to this step into the new log."""
        self._first_step = step
        for event in read_events(self.out / _EARLIER_EVENTS_FILE):
            if event["step"] <= step:
                self.write(**event)
                self._logged |= {
                    (event["step"], what)
                    for what in (*event.get("values", ()), event.get("path", ""))
                }

    def already_logged(self, step: int, what: str) -> bool:
        """Whether an earlier process logged this metric or file for a step."""
        return (step, what) in self._logged

    def write(self, **event: Any) -> None:
        """Append an event."""
        if self.enabled:
            with (self.out / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    def warn(self, text: str) -> None:
        """Append a warning."""
        self.write(kind="warning", text=text)

    def note(self, text: str) -> None:
        """Append a message that stands beside the progress until the first step."""
        self.write(kind="progress", done=self._first_step, total=self.total, note=text)

    def write_step(self, step: int, loss: float, gradient_norm: float, lr: float) -> None:
        """Append the metrics of a step, and the progress with the remaining time."""
        elapsed = time.monotonic() - self._started
        speed = (step - self._first_step) * self.batch_size / elapsed
        eta = (self.total - step) * self.batch_size / speed
        values = {"loss": loss, "lr": lr, "gradient_norm": gradient_norm, "images_per_s": speed}
        self.write(kind="metrics", step=step, values=values)
        note = f"loss {loss:.4f}  {speed:.0f} images/s  ETA {int(eta // 60)}:{int(eta % 60):02d}"
        self.write(kind="progress", done=step, total=self.total, note=note)
