"""A stage as a Prefect task, which tries it again after a transient failure."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.tasks import Task, exponential_backoff
from prefect.utilities.annotations import quote
from prefect.utilities.engine import get_state_for_result, link_state_to_result
from requests import ConnectionError as RequestsConnectionError

from data_catalog.storage.workspace import StageName
from flows.terminal.errors import UserError
from pipeline.config.run import RunConfig
from pipeline.stages.contract import StageFailed

Result = TypeVar("Result")
P = ParamSpec("P")
GPU = "gpu"  # tag of the stages that use one; a server may limit how many run at once


def stage_task(name: str, *tags: str) -> Callable[[Callable[P, Result]], Task[P, Result]]:
    """Make a function the task of a stage. Manifests decide what is fresh, so Prefect stores no
    results and no cache."""
    return task(
        name=name,
        tags=tags,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=exponential_backoff(10),
        retry_condition_fn=_is_transient,
    )


def run_after(task: Task[..., Result], job: object, outputs: Sequence[object]) -> Result:
    """Run a task on outputs of others, each of which Prefect shows as one that it waits for.

    Prefect would find these by itself, but by every part of an output too, and outputs share parts,
    such as the name of their run: its graph would have edges between stages that do not depend on
    each other.
    """
    marks = [mark for output in outputs if (mark := _mark(output))]
    return task(job, *(quote(output) for output in outputs), wait_for=marks)


class _Mark:
    """Stands for an output of a task, and has no parts."""


def _mark(output: object) -> _Mark | None:
    """A mark of an output; None if no task of this flow run returned it."""
    linked = get_state_for_result(output)
    if linked is None:
        return None
    mark = _Mark()
    link_state_to_result(linked[0], mark, linked[1])
    return mark


def stage_run_name(config: RunConfig, stage: StageName) -> str:
    """The name of a stage's task run: run, stage and phase."""
    of_distilled = stage == "evaluate" and config.model_stage == "distill"
    words = (config.name, stage, "distilled" if of_distilled else "", config.phase or "")
    return " ".join(filter(None, words))


def _is_transient(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Whether a stage failed for a transient reason, such as an unreachable server or a busy name
    server, so that it is retried. What a user has to change is not retried."""
    error: object = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        # Prefect's client has already retried these itself.
        if isinstance(error, UserError | StageFailed | ConcurrencySlotAcquisitionError):
            return False
        if isinstance(error, ConnectionError | TimeoutError | RequestsConnectionError):
            return True
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            return True
        error = error.__cause__ or error.__context__
    return False
