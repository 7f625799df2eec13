"""What several rooms' tests share: quiet libraries, and a tracker that remembers what it was
told."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from pipeline.config.command_line import remember_command
from tests.support.tracker import RememberingTracker

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a background job; so would all that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update({"DO_NOT_TRACK": "true", "NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1"})


@pytest.fixture
def track() -> RememberingTracker:
    return RememberingTracker()


@pytest.fixture(autouse=True)
def _default_opener() -> Iterator[None]:
    """A download in this process leaves its guarded opener installed, which refuses loopback."""
    yield
    urllib.request.install_opener(None)


@pytest.fixture(autouse=True)
def _no_command_of_another_test() -> Iterator[None]:
    yield
    remember_command([])


@pytest.fixture(autouse=True)
def _no_store_of_another_test() -> Iterator[None]:
    """MLflow keeps the address of a store for the process, and in its environment."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
