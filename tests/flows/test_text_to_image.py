"""The Prefect flow: what it reads once, and which failures of a stage it tries again."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from mlflow.exceptions import MlflowException
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.states import Failed

from flows.terminal.errors import UserError
from flows.text_to_image import _is_transient
from pipeline.stages.contract import StageFailed
from tests.support.small import TINY, small

# The command line in a process that says whenever it reads the URL table.
COUNTING = """
import sys
from pipeline.stages import run_inputs
digest = run_inputs.digests_of
run_inputs.digests_of = lambda urls: (print("the table is read"), digest(urls))[1]
from flows.cli.app import main
main(sys.argv[1:])
"""


def because(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionRefusedError("nobody listens"),
    TimeoutError("no answer"),
    because(MlflowException("API request failed"), requests.ConnectionError("nobody listens")),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    because(
        urllib.error.URLError("no name"), socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    ),
]
STAYING = [
    ValueError("a bug"),
    OSError(28, "No space left on device"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    MlflowException("INVALID_PARAMETER_VALUE"),
    because(UserError("start it"), ConnectionRefusedError("nobody listens")),
    because(StageFailed("too few images"), TimeoutError("no answer")),
    because(
        ConcurrencySlotAcquisitionError("Prefect's client has asked for minutes"),
        TimeoutError("no answer"),
    ),
]


@pytest.mark.parametrize("error", [*PASSING, *STAYING], ids=repr)
def test_only_what_is_transient_is_tried_again(error: BaseException) -> None:
    nobody = cast(Any, None)
    assert _is_transient(nobody, nobody, Failed(data=error)) is (error in PASSING)


@pytest.mark.slow
def test_the_url_table_is_read_once_to_ask_and_once_to_run(tmp_path: Path) -> None:
    """The command asks what is stale; the flow, which may also run without the command, decides."""

    def reads(*words: str) -> int:
        command = [sys.executable, "-c", COUNTING, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.count("the table is read")

    run = [str(TINY), *small(tmp_path / "data", download__limit=8)]
    assert reads("run", *run, "--until", "download") == 2
    assert reads("run", *run, "--until", "download") == 1, "it is fresh"
    assert reads("status", *run) == 1
