"""What a stage is handed and what it returns: a tracker, a mapper of shards, an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_catalog.storage.receipts import Shard

Item = TypeVar("Item")
Result = TypeVar("Result")


class ShowsProgress(Protocol):
    """The part of a Tracker that shows how far work is."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """How far it is."""


class Tracker(ShowsProgress, Protocol):
    """Where a stage reports to while it works."""

    @property
    def run_id(self) -> str:
        """Id of the run that is told of this stage, or ""."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers that belong to a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file worth keeping with the run."""

    def warning(self, text: str) -> None:
        """Something a person should know, although the stage goes on."""


class MapShards(Protocol):
    """Apply a worker to shards, yield results as they finish; wherever the workers live."""

    def __call__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        workers: int,
        deadline_s: float | None = None,
    ) -> Iterator[Result]: ...


@dataclass(frozen=True, slots=True)
class Output:
    """What a stage function returns: it becomes a manifest."""

    shards: tuple[Shard, ...]
    figures: dict[str, Any]


class StageFailed(RuntimeError):
    """A stage that could not finish; the message says what was kept and how to go on."""

    exit_code = 1
