"""Which failures of a stage its task tries again."""

from __future__ import annotations

import socket
import urllib.error
from typing import Any, cast

import pytest
import requests
from mlflow.exceptions import MlflowException
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.states import Failed

from flows.orchestration.stage_task import _is_transient
from flows.terminal.errors import UserError
from pipeline.stages.contract import StageFailed


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
