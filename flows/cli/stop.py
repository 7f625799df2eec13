"""`tld stop`: a run of this workspace is asked to stop, as Ctrl-C does, from another terminal."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.storage.run_records import ProcessIdentity, StoredRecord, read_records
from flows.cli.groups import Config, Overrides
from flows.cli.run_view import ended_text
from flows.cli.watch import nothing_runs
from flows.terminal.console import console, load, location_of, say
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_EVERY_S = 0.2
_TYPE_AGAIN = "type the command again that you typed, without its --force if it has one"
_STEP_S = 10  # between two lines, if there is no terminal


def stop(config: Config, *overrides: Overrides) -> None:
    """Ask the run in the workspace of this config to stop, as Ctrl-C in its terminal does, and wait
    for it. A training writes a checkpoint first. The run's command resumes it.

    If several runs are at work, the one with these settings stops, or the only one of this name. If
    that is not clear, they are listed, and none stops.

    Example: tld stop tiny
    """
    from flows.terminal.progress import Progress

    settings = load(config, overrides)
    chosen = _choose(read_records(settings.folder), settings)
    process = chosen.record.process
    if not process.is_running_here and _is_at_work(settings.folder, chosen.log):
        raise UserError(_out_of_reach(process))
    _ask(chosen)
    started, note = time.monotonic(), f"process {process.pid} is stopping"
    try:
        with Progress("stop") as show:
            while process.is_running_here:
                seconds = int(time.monotonic() - started) // _STEP_S * _STEP_S
                show.update(0, 0, f"{note}, for {seconds} s" if seconds else note)
                time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        say(f"\nthe waiting has ended; {note}")
        raise SystemExit(128 + signal.SIGINT) from None
    _print_end(settings.folder, chosen.log)


def _choose(stored: Sequence[StoredRecord], settings: RunConfig) -> StoredRecord:
    """The run to stop. Raises UserError if there is none, or it is not clear which."""
    from pipeline.config.typed_settings import settings_digest

    at_work = [one for one in stored if one.is_at_work]
    if not at_work:
        last = f"; the last run:\n\n{ended_text(stored[-1])}" if stored else ""
        raise UserError(f"{nothing_runs(settings)}, so nothing can be stopped{last}")
    digest = settings_digest(settings)
    same_settings = [one for one in at_work if one.record.settings == digest]
    same_name = [one for one in at_work if one.record.name == settings.name]
    for candidates in (same_settings, same_name):
        if len(candidates) == 1:
            return candidates[0]
    several = same_settings or same_name
    why = f"several runs of {settings.name} are" if several else f"no run of {settings.name} is"
    lines = "".join(
        f"\n  process {one.record.process.pid} on {one.record.process.host}: {one.record.command}"
        for one in several or at_work
    )
    what = "give the config and the settings of the one to stop" + (
        ", or stop one by its process: kill -INT PROCESS" if len(same_settings) > 1 else ""
    )
    raise UserError(
        f"{why} at work in {location_of(settings)}; none was stopped. At work:{lines}\n{what}"
    )


def _is_at_work(root: Path, log: Path) -> bool:
    """Whether the run with this log is at work now."""
    return any(one.log == log and one.is_at_work for one in read_records(root))


def _out_of_reach(process: ProcessIdentity) -> str:
    """Where to stop a process that is not visible here."""
    if process.host != socket.gethostname():
        return f"the run works on {process.host}, as process {process.pid}: type tld stop there"
    return (
        f"the run works as process {process.pid}, which is not visible here, as from outside "
        "its container: type tld stop where it was started"
    )


def _ask(chosen: StoredRecord) -> None:
    """Interrupt a run, unless it was interrupted before. Raises UserError."""
    process = chosen.record.process
    if process.is_running_here:
        _signal(process.pid, 0)  # whether it may be interrupted
    try:
        with chosen.interrupting() as is_first:
            if is_first and process.is_running_here:
                _signal(process.pid, _signal_of(process.pid))
    except OSError as error:
        raise UserError(f"cannot write beside {chosen.log}: {error.strerror}") from error


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself
    except PermissionError as error:
        raise UserError(f"process {pid} belongs to another user, who can stop it") from error


def _signal_of(pid: int) -> signal.Signals:
    """That of Ctrl-C, or SIGTERM to a process that ignores it, as one that a script started in the
    background does."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return signal.SIGINT
    masks = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    is_ignored = any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks)
    return signal.SIGTERM if is_ignored else signal.SIGINT


def _print_end(root: Path, log: Path) -> None:
    """Print how the run ended, what it has kept, and how to resume. Raises StageFailed if it did
    not end by the request."""
    from pipeline.stages.contract import StageFailed

    stored = next((one for one in read_records(root) if one.log == log), None)
    if not stored:
        console.print("the process has ended; its record is gone")
        return
    record = stored.record
    if record.ended == "finished":
        console.print(f"the run finished before it could stop\n\n{ended_text(stored)}")
        return
    if record.ended != "stopped":
        raise StageFailed(f"the run did not stop as asked\n\n{ended_text(stored)}")
    kept_lines = [line for line in record.lines if ": stopped; " in line]
    at = f" in {record.stage}" if record.stage else ""
    console.print("\n".join([f"stopped{at}", *(f"  {line}" for line in kept_lines[-1:])]))
    resume = f":\n  {record.resume}" if record.resume else f", {_TYPE_AGAIN}"
    console.print(f"finished stages and shards are kept; to resume{resume}")
