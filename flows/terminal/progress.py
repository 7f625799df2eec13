"""Progress of a stage: a bar in a terminal, lines with the time elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType

from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from flows.terminal.console import Terminal
from flows.terminal.escape import visible
from flows.terminal.first_sign import end_first_sign
from flows.terminal.run_record import run_recorder
from flows.terminal.verbosity import is_quiet

_INTERVAL_S = 10.0  # between two lines, if there is no terminal
_LOG_INTERVAL_S = 30.0  # between two lines of a count in the caller's log
_run_log = logging.getLogger("tld.progress")


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
        self._line_at = time.monotonic()
        self._phase = ""

    def __enter__(self) -> Progress:
        if recorder := run_recorder():
            recorder.begin_stage(self._stage)
        if self._console.is_terminal and not is_quiet():
            end_first_sign()  # before the bars hide the cursor
            self._bars = Bars(
                TextColumn("{task.description:9}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[count]}"),
                _Elapsed(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._bars.start()
            self._task = self._bars.add_task(self._stage, total=None, count="", note="starting")
        return self

    def update(self, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` are done, with a note; or with a total of 0 what is being
        done, of which there is a line at once, if there is no terminal."""
        if recorder := run_recorder():
            recorder.show(done, total, note)
        count = f"{done:,}/{total:,} ({done / total:.0%})" if total else ""
        if self._bars and self._task is not None:
            self._bars.tasks[0].total = total or None  # which `update` would not change to None
            self._bars.update(self._task, completed=done, count=count, note=visible(note))
        if time.monotonic() - self._logged_at > _LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            self._log("  ".join(filter(None, (count, note))))
        if total:
            is_due = time.monotonic() - self._line_at > _INTERVAL_S
        else:
            is_due, self._phase = note != self._phase, note
        if is_due:
            self._line_at = time.monotonic()
            self._write("  ".join(filter(None, (count, note))), is_passing=True)

    def finish(self, note: str) -> None:
        """Print a line that stays on the terminal, such as the result. One that begins with
        `warning:` is printed with --quiet too."""
        self._log(note)
        if recorder := run_recorder():
            recorder.keep_line(f"{self._stage}: {note}")
        self._write(note)

    def _write(self, text: str, *, is_passing: bool = False) -> None:
        """Write a line to the run log, and print it. What passes is a bar on a terminal."""
        line = f"{self._stage:9} {text}"
        _run_log.info(line)
        if self._console.is_terminal:
            if is_passing:
                return
        else:
            line = f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}"
        if text.startswith("warning: ") or not is_quiet():
            self._console.print(line, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        if kind is None and (recorder := run_recorder()):
            recorder.end_stage()


class _Elapsed(ProgressColumn):
    """Seconds since the stage began, which go on after a count is complete."""

    def render(self, task: Task) -> Text:
        return Text(str(timedelta(seconds=int(task.elapsed or 0))))


@dataclass(frozen=True, slots=True)
class Shown:
    """A progress callback that shows progress and records nothing."""

    show: Progress

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)
