"""The tracker that a stage reports to: its run in MLflow, its progress, and other trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.terminal.progress import Progress
from flows.tracking.messages import artifact_message, image_message, metrics_message
from flows.tracking.outbox import Message, Outbox
from pipeline.stages.contract import Tracker


@dataclass(frozen=True, slots=True)
class StageTracker:
    """The Tracker of one stage: records in its run, shows progress, and passes all on to others."""

    run_id: str
    title: str  # name of its run
    show: Progress
    outbox: Outbox
    root: Path
    others: tuple[Tracker, ...] = ()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.outbox.put(metrics_message(self.run_id, values, step))
        for tracker in self.others:
            tracker.metrics(values, step)

    def artifact(self, path: Path, folder: str = "") -> None:
        self.outbox.put(artifact_message(self.root, self.run_id, path, folder))
        for tracker in self.others:
            tracker.artifact(path, folder)

    def image(self, path: Path, name: str, step: int) -> None:
        self.outbox.put(image_message(self.root, self.run_id, path, name, step))
        for tracker in self.others:
            tracker.image(path, name, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)
        for tracker in self.others:
            tracker.progress(done, total, note)

    def note(self, text: str) -> None:
        self.show.finish(text)
        for tracker in self.others:
            tracker.note(text)

    def warning(self, text: str) -> None:
        self.show.finish(f"warning: {text}")
        self.outbox.put(Message(self.run_id, "tags", {"tld.warning": text}))
        for tracker in self.others:
            tracker.warning(text)
