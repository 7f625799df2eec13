"""A long step as a child process: its crash is an error here, our end is its end.

The child writes events, a JSON object a line, to a file that is followed from here: unlike a pipe, a file
does not break when this process is killed. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_GRACE_S = 20.0  # from the polite signal to the other one
_TAIL_LINES = 15


class ChildFailed(RuntimeError):
    """The child ended badly; the message says how, with the last lines that it wrote."""


def run_child(module: str, arguments: list[str], events: Path, log: Path, on_event: Callable[[Event], None]) -> None:
    """Run `python -m module` in a process group of its own and hand on its events until it ends.

    Events that were in the file before are handed on first: a resumed step tells its whole story.
    Raises ChildFailed.
    """
    events.touch()
    with log.open("ab") as output, events.open() as told:
        start = log.stat().st_size
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            ended = False
            while not ended:
                ended = child.poll() is not None
                _hand_on(told, on_event)
                if not ended:
                    time.sleep(0.1)
        finally:
            _end(child)
    if child.returncode:
        raise ChildFailed(f"{_why(child.returncode)}\n{_tail(log, start)}")


def _hand_on(told: Any, on_event: Callable[[Event], None]) -> None:
    """Events of whole lines; half a line waits for its other half."""
    while True:
        position = told.tell()
        line = told.readline()
        if not line.endswith("\n"):
            told.seek(position)
            return
        on_event(json.loads(line))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole group where it still runs: we are being cancelled."""
    for polite in (True, False):
        if child.poll() is not None:
            return
        os.killpg(child.pid, signal.SIGTERM if polite else signal.SIGKILL)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue


def _why(code: int) -> str:
    if code == -signal.SIGKILL:
        return "it was killed: most likely out of memory"
    return f"it was ended by signal {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])
