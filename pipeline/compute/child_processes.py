"""A long step as a child process, or several that work together: their crash is an error here, our
end is theirs.

The first of them may write events, a JSON object a line, to a file that is followed from here:
unlike a pipe, a file does not break when this process is killed. Knows nothing of training.
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

from pipeline.compute.resource_limits import shortage_in_text

Event = dict[str, Any]
_GRACE_S = 20.0  # from the polite signal to the other one
_PEERS_GRACE_S = 5.0  # to end by themselves, once one of several has failed
_TAIL_LINES = 15
STOPPED = 128 + signal.SIGTERM  # exit code of a child that ended because it was asked to


class ChildFailed(RuntimeError):
    """A child ended badly; the message says how, with the last lines that it wrote."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int  # of its log
    name: str

    @property
    def failed(self) -> bool:
        return bool(self.process.poll())


def run_processes(
    module: str,
    arguments: list[str],
    log: Path,
    environments: Mapping[int, Mapping[str, str]],
    count: int,
    on_poll: Callable[[], str],
    locks: Sequence[int] = (),
) -> None:
    """Run `python -m module`, once for each of the environments, each in a process group of its
    own, until all have ended. They are these numbers of `count` that work together, here or on
    other machines; all inherit the locks (locks.held).

    `meanwhile` is called again and again, and returns why they wait in vain, or nothing. When one
    fails, or they wait in vain, those that do not end by themselves are ended. Raises ChildFailed.
    """
    command = [sys.executable, "-m", module, *arguments]
    children: list[_Child] = []
    stall_reason = ""
    try:
        for number, environment in environments.items():
            children.append(_start(command, environment, log, number, count, locks))
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
        _end(children, (signal.SIGTERM, signal.SIGKILL))  # we are being cancelled
        raise
    _end(children, (signal.SIGKILL,))  # they wait for one that is gone
    if failures:
        raise ChildFailed(_describe(failures[0]))
    if unfinished:
        raise ChildFailed(stall_reason)


@contextmanager
def tail_events(events: Path, on_event: Callable[[Event], None]) -> Iterator[Callable[[], None]]:
    """A function that hands on what is new among the events, as the end of the block does.

    Events that were in the file before are handed on first: a resumed step tells its whole story.
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
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    number: int,
    count: int,
    locks: Sequence[int],
) -> _Child:
    log = log.with_suffix(f".{number}{log.suffix}") if number else log
    name = f"process {number + 1} of {count}" if count > 1 else "it"
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            pass_fds=locks,
        )
    return _Child(process, log, log_start, name)


def _pass_on(file: TextIO, on_event: Callable[[Event], None]) -> None:
    """Events of whole lines; half a line waits for its other half. One that a full disk cut short
    is left out."""
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
    """End the whole group of each child that still runs, by one signal after the other."""
    for number in signals:
        for child in children:
            if child.process.poll() is None:
                os.killpg(child.process.pid, number)
        _wait(children, _GRACE_S)


def _wait(children: Sequence[_Child], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while _any_running(children) and time.monotonic() < deadline:
        time.sleep(0.05)


def _any_running(children: Sequence[_Child]) -> bool:
    return any(child.process.poll() is None for child in children)


def _failure_priority(child: _Child) -> tuple[bool, bool, int]:
    """Order of those that failed: a killed one first, then who wrote why, and wrote first; the
    others tell only that they lost it."""
    written = child.log.stat()
    return (child.process.returncode > 0, written.st_size == child.log_start, written.st_mtime_ns)


def _describe(child: _Child) -> str:
    with child.log.open("rb") as file:
        file.seek(child.log_start)
        lines = file.read().decode(errors="replace").splitlines()
    tail = "".join(f"\n  | {line}" for line in lines[-_TAIL_LINES:])
    shortage = "".join(f"\n{reason}" for reason in (shortage_in_text(tail),) if reason)
    return f"{child.name} {_describe_exit(child.process.returncode)}{tail}{shortage}\nIts log: {child.log}"


def _describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed: most likely out of memory"
    if code == STOPPED:
        return "was asked to stop, and did"
    return (
        f"was ended by signal {signal.Signals(-code).name}"
        if code < 0
        else f"ended with exit code {code}"
    )
