"""A Tracker for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RememberingTracker:
    """A Tracker that keeps what it hears."""

    run_id: str = "test-run"
    heard: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    images: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: list[tuple[int, int, str]] = field(default_factory=list)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.heard.append((step, dict(values)))

    def artifact(self, path: Path, folder: str = "") -> None:
        assert path.exists()
        self.artifacts.append(f"{folder}/{path.name}")

    def image(self, path: Path, name: str, step: int) -> None:
        self.artifact(path, name)
        self.images.append((name, step))

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.shown.append((done, total, note))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
