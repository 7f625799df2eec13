"""How far a stage is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from flows.terminal.console import Terminal
from flows.terminal.escape import visible

_QUIET_S = 10.0  # between two lines, where there is no terminal


class Progress:
    """Shows one stage, from `with` to `finish`."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._console = Terminal(stderr=True)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._spoke_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description:9}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._bars.start()
            self._task = self._bars.add_task(self._stage, total=None, note="")
        return self

    def update(self, done: int, total: int, note: str) -> None:
        """Show `done` of `total`, with a note."""
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=visible(note))
        elif time.monotonic() - self._spoke_at > _QUIET_S:
            self._spoke_at = time.monotonic()
            self._console.print(f"{self._stage:9} {done}/{total}  {note}", soft_wrap=True)

    def finish(self, note: str) -> None:
        """Say in one line that stays what came out."""
        self._console.print(f"{self._stage:9} {note}", soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a stage tells of its progress, shown and not recorded."""

    show: Progress

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)
