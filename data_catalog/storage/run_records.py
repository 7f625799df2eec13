"""Records of runs: which process works in a workspace, at what, and how each run ended.

A record lies beside the log of its run and is replaced whenever something changes. Its process
locks the log as long as it lives, so a record that was not closed is of a run at work, or of one
that was killed.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.storage.file_lock import LOCK_NAME, holder_name, is_locked
from data_catalog.storage.workspace import OUTPUT_FOLDERS, Workspace

_RECORD, _STOP_MARK = ".json", ".stop"
_INTERRUPTED = "interrupted\n"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19  # of /proc/PID/stat after the name of the program: proc(5), field 22


class ProcessIdentity(BaseModel):
    """A process that is not mistaken for a later one with its number."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    boot: str
    """Id of the boot of the machine."""
    started_ticks: int
    """When the process started, in clock ticks since the boot."""

    @property
    def is_running_here(self) -> bool:
        """Whether it runs on this machine, and is visible."""
        return self == identify_process(self.pid)


class StageRecord(BaseModel):
    """A stage of a run."""

    model_config = ConfigDict(frozen=True)

    title: str
    state: Literal["to do", "at work", "done"] = "to do"


class RunRecord(BaseModel):
    """What is known of a run from outside its process."""

    model_config = ConfigDict(frozen=True)

    command: str
    """As it was typed, without the secrets of URLs."""
    resume: str = ""
    """The command that resumes it: --force is left out for stages that have begun. "" if it holds a
    secret."""
    name: str
    """The config's name of the run."""
    settings: str
    """Digest of the settings that can change an output."""
    process: ProcessIdentity
    started_at: datetime
    updated_at: datetime
    stages: tuple[StageRecord, ...] = ()
    done: int = 0
    total: int = 0
    """Units of the stage at work; 0 if it does what is not counted."""
    note: str = ""
    """What is shown beside the count: speed, time left, loss."""
    lines: tuple[str, ...] = ()
    """The last lines that stay on the terminal."""
    ended: Literal["finished", "failed", "stopped"] | None = None

    @property
    def stage(self) -> str:
        """The title of the stage at work, or ""."""
        return next((stage.title for stage in self.stages if stage.state == "at work"), "")


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record in a workspace."""

    record: RunRecord
    log: Path
    is_at_work: bool

    @property
    def was_killed(self) -> bool:
        return self.record.ended is None and not self.is_at_work

    @property
    def interrupted_at(self) -> datetime | None:
        """When it was interrupted, from its terminal or by `tld stop`."""
        with suppress(OSError):
            status = self.log.with_suffix(_STOP_MARK).stat()
            if status.st_size:
                return datetime.fromtimestamp(status.st_mtime).astimezone()
        return None

    @contextmanager
    def interrupting(self) -> Iterator[bool]:
        """For the length of the block nobody else interrupts it, and at the end it is marked as
        interrupted. Yields False if it is already: a second interrupt would end the writing of the
        checkpoint. Raises OSError."""
        with self.log.with_suffix(_STOP_MARK).open("a", encoding="utf-8") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)
            is_first = not self.interrupted_at
            yield is_first
            if is_first:
                mark.write(_INTERRUPTED)


def identify_process(pid: int) -> ProcessIdentity | None:
    """The identity of a process of this machine; None if there is none, or only a zombie."""
    try:
        boot = _BOOT.read_text(encoding="utf-8").strip()
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    ticks = int(fields[_START_FIELD])
    return ProcessIdentity(host=socket.gethostname(), pid=pid, boot=boot, started_ticks=ticks)


def write_record(log: Path, record: RunRecord) -> None:
    """Write the record of the run with this log. It is not flushed to the disk, because it is only
    shown. Raises OSError."""
    unfinished = _unfinished(log)
    unfinished.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    os.replace(unfinished, log.with_suffix(_RECORD))


def mark_interrupted(log: Path) -> None:
    """Mark the run with this log as interrupted. Raises OSError."""
    with log.with_suffix(_STOP_MARK).open("a", encoding="utf-8") as mark:
        mark.write(_INTERRUPTED)


def delete_log(log: Path) -> None:
    """Delete a log and what lies beside it. Raises OSError."""
    for path in (*map(log.with_suffix, (_RECORD, _STOP_MARK)), _unfinished(log), log):
        path.unlink(missing_ok=True)


def read_records(root: Path) -> list[StoredRecord]:
    """The records of a workspace, oldest first. Changes nothing."""
    return sorted(_records(root), key=lambda stored: stored.record.started_at)


def folder_at_work(root: Path, process: ProcessIdentity) -> Path | None:
    """The output folder in which a process works, by the lock that it holds there."""
    holder = holder_name(process.host, process.pid)
    return next((folder for folder, other in held_folders(root) if other == holder), None)


def held_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """The output folders in which a process works, with a record or without, and the name of the
    process."""
    workspace = Workspace(root)
    for stage in OUTPUT_FOLDERS:
        for lock in sorted(workspace.outputs(stage).glob(f"*/{LOCK_NAME}")):
            with suppress(OSError):
                if is_locked(lock):
                    yield lock.parent, lock.read_text(encoding="utf-8", errors="replace")


def _unfinished(log: Path) -> Path:
    """A record that is being written, or was when its process was killed."""
    return log.with_name(f".{log.stem}.partial{_RECORD}")


def _records(root: Path) -> Iterator[StoredRecord]:
    for path in Workspace(root).logs.glob(f"[!.]*{_RECORD}"):
        log = path.with_suffix(".log")
        # The lock is looked at first: a run may end in between.
        is_at_work = is_locked(log)
        with suppress(OSError, ValidationError):
            record = RunRecord.model_validate_json(path.read_bytes())
            yield StoredRecord(record, log, is_at_work and record.ended is None)
