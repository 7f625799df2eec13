"""Interfaces of a stage: the tracker and shard mapper that it receives, and its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_catalog.storage.receipts import Shard

Item = TypeVar("Item")
Result = TypeVar("Result")


class ShowsProgress(Protocol):
    """The part of a Tracker that shows progress."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` units are done, with a note. A total of 0 shows work that
        is not counted, which the note names."""


class Tracker(ShowsProgress, Protocol):
    """Receives the reports of a stage while it works."""

    @property
    def run_id(self) -> str:
        """Id of the tracking run of this stage, or ""."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Store a file with the run."""

    def image(self, path: Path, name: str, step: int) -> None:
        """Store an image of a step with the run, such as a grid of samples, as one of those of a
        name."""

    def note(self, text: str) -> None:
        """Tell something that stays on the terminal after the progress."""

    def warning(self, text: str) -> None:
        """Warn of a problem that does not stop the stage."""


class MapShards(Protocol):
    """Applies a worker to shards, wherever the workers run, and yields results as they finish."""

    def __call__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        workers: int,
        deadline_s: float | None = None,
    ) -> Iterator[Result]: ...


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a stage function, which becomes a manifest."""

    shards: tuple[Shard, ...]
    figures: dict[str, Any]


class StageFailed(RuntimeError):
    """A stage that could not finish; the message says what was kept and how to resume."""

    exit_code = 1
