"""The record of the run of this process, which `tld watch` and `tld stop` read."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from data_catalog.redaction import redact_credentials
from data_catalog.storage.file_lock import LockTimeout, is_locked, locked
from data_catalog.storage.run_records import (
    RunRecord,
    StageRecord,
    delete_log,
    identify_process,
    mark_interrupted,
    write_record,
)
from data_catalog.storage.workspace import Workspace
from flows.terminal.resuming import resuming_command
from pipeline.config.command_line import typed_command

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_KEEP = 20  # newest logs
_LINES = 5  # last ones
_EVERY_S = 1.0  # between two writes of a count
_LOCK_TIMEOUT_S = 5.0  # for those who look whether it is locked


@dataclass(slots=True)
class RunRecorder:
    """Writes the record of a run. It is only shown, so nothing fails if it cannot be written."""

    log: Path
    _record: RunRecord
    _written_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_stage(self, title: str) -> None:
        """A stage begins. Those before it in the plan are done, if it is planned."""
        with self._lock:
            stages, number = self._record.stages, self._place_of(title)
            if number == len(stages):
                stages = (*stages, StageRecord(title=title, state="at work"))
            else:
                before = [StageRecord(title=one.title, state="done") for one in stages[:number]]
                at_work = StageRecord(title=stages[number].title, state="at work")
                stages = (*before, at_work, *stages[number + 1 :])
            begun = {one.title.split()[0] for one in stages if one.state != "to do"}
            resume = resuming_command(begun)
            self._write(stages=stages, resume=resume, done=0, total=0, note="")

    def show(self, done: int, total: int, note: str) -> None:
        """Write a count of the stage at work, about once a second, or what it does instead."""
        with self._lock:
            is_due = time.monotonic() - self._written_at >= _EVERY_S
            if is_due or not total:
                self._write(done=done, total=total, note=redact_credentials(note))

    def keep_line(self, text: str) -> None:
        """Write a line that stays on the terminal."""
        with self._lock:
            lines = (*self._record.lines, redact_credentials(text))
            self._write(lines=lines[-_LINES:])

    def end_stage(self) -> None:
        """The stage at work is done."""
        with self._lock:
            stages = tuple(
                StageRecord(title=one.title, state="done") if one.state == "at work" else one
                for one in self._record.stages
            )
            self._write(stages=stages, done=0, total=0, note="")

    def close(self, error: BaseException | None) -> None:
        """The run has ended."""
        with self._lock:
            if isinstance(error, Exception):
                why = redact_credentials(str(error)) or type(error).__name__
                self._write(ended="failed", lines=(*self._record.lines, why)[-_LINES:])
            else:
                self._write(ended="stopped" if error else "finished")

    def _place_of(self, title: str) -> int:
        """The number of the stage in the plan, of two evaluations that of the next; the number of
        a further one if it is not planned."""
        for number, stage in enumerate(self._record.stages):
            is_same = stage.title.replace(" distilled", "") == title
            if is_same and stage.state != "done":
                return number
        return len(self._record.stages)

    def _write(self, **changes: Any) -> None:
        self._written_at = time.monotonic()
        self._record = self._record.model_copy(update={**changes, "updated_at": datetime.now(UTC)})
        with suppress(OSError):
            write_record(self.log, self._record)


_recorders: list[RunRecorder] = []  # at most one


def run_recorder() -> RunRecorder | None:
    """That of the run of this process."""
    return _recorders[-1] if _recorders else None


@contextmanager
def recorded_run(settings: RunConfig, stages: Sequence[str]) -> Iterator[None]:
    """Record a run of these stages for the length of the block. Where no file can be written, the
    run goes on without a record."""
    from pipeline.config.typed_settings import settings_digest

    process = identify_process(os.getpid())
    try:
        log = new_log(settings.folder)
        lock = locked(log, _LOCK_TIMEOUT_S)
    except (OSError, LockTimeout):
        process = None
    if not process:
        yield
        return
    now = datetime.now(UTC)
    record = RunRecord(
        command=typed_command(),
        resume=resuming_command(),
        name=settings.name,
        settings=settings_digest(settings),
        process=process,
        started_at=now,
        updated_at=now,
        stages=tuple(StageRecord(title=title) for title in stages),
        note="starting",
    )
    recorder = RunRecorder(log, record)
    with lock, _marking_interrupts(log):
        with suppress(OSError):
            write_record(log, record)
        _recorders.append(recorder)
        try:
            yield
        except BaseException as error:
            recorder.close(error)
            raise
        else:
            recorder.close(None)
        finally:
            _recorders.pop()


@contextmanager
def _marking_interrupts(log: Path) -> Iterator[None]:
    """Mark the run with this log at an interrupt, before what it does then, so that `tld stop` does
    not interrupt it again. SIGTERM in a flow is caught by Prefect first, and marked later."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def mark(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            mark_interrupted(log)
        if callable(handler := handlers[signal.Signals(number)]):
            handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield  # which alone can handle signals
        return
    callables = [number for number, handler in handlers.items() if callable(handler)]
    for number in callables:
        signal.signal(number, mark)
    try:
        yield
    finally:
        for number in callables:
            signal.signal(number, handlers[number])


def new_log(root: Path) -> Path:
    """The path of a new log, beside the newest of the others and those of runs at work. Raises
    OSError."""
    folder = Workspace(root).logs
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -_KEEP + 1]:
        if not is_locked(old):
            delete_log(old)
    return folder / f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{os.getpid()}.log"
