"""Child processes that work together on one long step.

A crash of one is an error here, and they end when this process does. The first of them may write
events to a file, one JSON object per line, which is tailed from here: unlike a pipe, a file does
not break when this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.compute.polling import wait_until
from pipeline.compute.resource_limits import shortage_in_text

Event = dict[str, Any]
_GRACE_S = 20.0  # from SIGTERM to SIGKILL
_PEERS_GRACE_S = 5.0  # for the others to end by themselves once one has failed
_TAIL_LINES = 15
STOPPED = 128 + signal.SIGTERM  # exit code of a child that stopped on request


class ChildFailed(RuntimeError):
    """A child process failed; the message says how and quotes the last lines of its log."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int  # of this run in its log, in bytes
    name: str

    @property
    def failed(self) -> bool:
        return bool(self.process.poll())


def run_processes(
    command: Sequence[str],
    log: Path,
    environments: Mapping[int, Mapping[str, str]],
    count: int,
    on_poll: Callable[[], str],
    locks: Sequence[int] = (),
) -> None:
    """Run `python -m COMMAND` (a module and its arguments) once per environment until all end.

    Each process has its own process group. The keys of `environments` number the processes among
    the `count` that work together, here or on other machines. All of them inherit `locks` (file
    descriptors of file_lock).

    `on_poll` is called repeatedly and returns why the processes wait in vain, or "". When one
    fails, or they wait in vain, those that do not end by themselves are killed. Raises ChildFailed.
    """
    children: list[_Child] = []
    stall_reason = ""
    try:
        for number, environment in environments.items():
            name = f"process {number + 1} of {count}" if count > 1 else "it"
            own_log = log.with_suffix(f".{number}{log.suffix}") if number else log
            children.append(_start(command, environment, own_log, name, locks))
        while (
            _any_running(children)
            and not any(child.failed for child in children)
            and not (stall_reason := on_poll())
        ):
            time.sleep(0.1)
        codes = {child.process.returncode for child in children if child.failed}
        _wait(children, _PEERS_GRACE_S if codes - {STOPPED} else _GRACE_S)
        failures = sorted((child for child in children if child.failed), key=_failure_priority)
        unfinished = _any_running(children)
    except BaseException:
        _end(children, (signal.SIGTERM, signal.SIGKILL))  # this step is being cancelled
        raise
    _end(children, (signal.SIGKILL,))  # they wait for a process that has ended
    if failures:
        raise ChildFailed(_describe(failures[0]))
    if unfinished:
        raise ChildFailed(stall_reason)


@contextmanager
def tail_events(events: Path, on_event: Callable[[Event], None]) -> Iterator[Callable[[], None]]:
    """Yield a function that passes new events to `on_event`; the end of the block calls it too.

    Events that were in the file before come first, so a resumed step reports from its beginning.
    """
    events.touch()
    with events.open(encoding="utf-8") as file:

        def pass_on() -> None:
            _pass_on(file, on_event)

        try:
            yield pass_on
        except ChildFailed:
            pass_on()
            raise
        pass_on()


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    name: str,
    locks: Sequence[int],
) -> _Child:
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            pass_fds=locks,
        )
    return _Child(process, log, log_start, name)


def _pass_on(file: TextIO, on_event: Callable[[Event], None]) -> None:
    """Pass on the events of complete lines. An incomplete last line is read again later; a line
    that a full disk cut short is skipped."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(position)
            return
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        on_event(event)


def _end(children: Sequence[_Child], signals: Sequence[signal.Signals]) -> None:
    """Send these signals, one after the other, to the process group of each running child."""
    for number in signals:
        for child in children:
            if child.process.poll() is None:
                os.killpg(child.process.pid, number)
        _wait(children, _GRACE_S)


def _wait(children: Sequence[_Child], timeout_s: float) -> None:
    wait_until(lambda: not _any_running(children), timeout_s, every_s=0.05)


def _any_running(children: Sequence[_Child]) -> bool:
    return any(child.process.poll() is None for child in children)


def _failure_priority(child: _Child) -> tuple[bool, bool, int]:
    """The order in which failures explain the cause: killed processes first, then those that wrote
    to their log, earliest first. The others merely report that they lost a peer."""
    written = child.log.stat()
    return (child.process.returncode > 0, written.st_size == child.log_start, written.st_mtime_ns)


def _describe(child: _Child) -> str:
    with child.log.open("rb") as file:
        file.seek(child.log_start)
        lines = file.read().decode(errors="replace").splitlines()
    tail = "".join(f"\n  | {line}" for line in lines[-_TAIL_LINES:])
    shortage = "".join(f"\n{reason}" for reason in (shortage_in_text(tail),) if reason)
    end = _describe_exit(child.process.returncode)
    return f"{child.name} {end}{tail}{shortage}\nIts log: {child.log}"


def _describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed: most likely out of memory"
    if code == STOPPED:
        return "stopped on request"
    return (
        f"was ended by signal {signal.Signals(-code).name}"
        if code < 0
        else f"ended with exit code {code}"
    )
