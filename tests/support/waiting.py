"""Waiting for what running commands, servers and captured output bring about."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.compute.polling import wait_until
from tests.support.command import descendants, start


def wait_while_running(
    ready: Callable[[], object], *processes: subprocess.Popen[str], timeout_s: float = 300
) -> None:
    """Wait for something that running processes bring about. It fails when one of them ends."""

    def is_ready() -> bool:
        if ready():
            return True
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        return False

    assert wait_until(is_ready, timeout_s, every_s=0.005)


def is_answering(address: str) -> bool:
    """Whether a web server answers there, and not with an error."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def printed_until(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """All that is printed to standard error until this text is."""
    printed: list[str] = []

    def holds_text() -> bool:
        printed.append(capsys.readouterr().err)
        return text in "".join(printed)

    assert wait_until(holds_text, timeout_s=60, every_s=0.02), "".join(printed)
    return "".join(printed)


def kill_when(ready: Callable[[], bool], *arguments: str | Path) -> None:
    """Start a command and kill its whole tree, whatever sessions its parts are in, once `ready`."""
    process = start(*arguments)
    wait_while_running(ready, process)
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()
