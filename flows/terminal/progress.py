"""Progress of a stage: a bar in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from flows.terminal.console import Terminal
from flows.terminal.escape import visible
from flows.terminal.first_sign import end_first_sign

_INTERVAL_S = 10.0  # between two lines, if there is no terminal
_LOG_INTERVAL_S = 30.0  # between two lines of progress in a log


class Progress:
    """The progress of one stage, shown for the length of a `with` block. What it shows goes to
    `log` too, without the stage."""

    def __init__(self, stage: str, log: Callable[[str], None] = lambda _: None) -> None:
        self._stage = stage
        self._log = log
        self._logged_at = time.monotonic()
        self._console = Terminal(stderr=True)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._printed_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            end_first_sign()  # before the bars hide the cursor
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
        """Show that `done` of `total` are done, with a note."""
        if time.monotonic() - self._logged_at > _LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            self._log(f"{done}/{total}  {note}")
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=visible(note))
        elif time.monotonic() - self._printed_at > _INTERVAL_S:
            self._printed_at = time.monotonic()
            self._console.print(f"{self._stage:9} {done}/{total}  {note}", soft_wrap=True)

    def finish(self, note: str) -> None:
        """Print a line that stays on the terminal, such as the result."""
        self._console.print(f"{self._stage:9} {note}", soft_wrap=True)
        self._log(note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()


@dataclass(frozen=True, slots=True)
class Shown:
    """A progress callback that shows progress and records nothing."""

    show: Progress

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)
