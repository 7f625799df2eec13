"""Sections for tools.gpu_check that end well, raise, hang, or are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

Figures = Iterator[tuple[str, Any]]


def ends(device: str) -> Figures:
    yield "device", device
    yield "process", os.getpid()


def raises(device: str) -> Figures:
    yield "device", device
    raise ValueError("the section cannot go on")


def hangs(device: str) -> Figures:
    yield "device", device
    time.sleep(600)


def is_killed(device: str) -> Figures:
    yield "device", device
    os.kill(os.getpid(), signal.SIGKILL)
