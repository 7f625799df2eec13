"""Shards as Prefect tasks, which are retried if their worker dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events.worker import EventsWorker
from prefect.runtime import task_run
from prefect.tasks import Task

from pipeline.compute.polling import wait_until
from pipeline.compute.shard_map import TRIES, given_up
from pipeline.compute.worker_pool import Pool, WorkerDied

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST_EVENTS = 1000  # in the client's queue; a shard adds four
_WAIT_S = 10.0


def _worker_died(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkerDied)


@task(
    name="shard",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=TRIES - 1,
    retry_condition_fn=_worker_died,
    log_prints=False,
)
def _shard_task(name: str, work: Callable[[], None]) -> None:  # noqa: ARG001
    """Returns nothing, because Prefect would keep the result of every shard until the flow ends."""
    work()


def run_as_task(pool: Pool[Item, Result], item: Item) -> Result:
    """Work on an item in a Prefect task, which tries it again if its worker dies. Raises what
    `Pool.run` does, but ShardFailed instead of the last WorkerDied."""
    results: list[Result] = []
    name = f"{task_run.name} shard {getattr(item, 'name', item)}"
    try:
        _shard_task(name, lambda: results.append(pool.run(item)))
    except WorkerDied as error:
        raise given_up(item, error) from error
    _wait_for_prefect()
    return results[0]


def _wait_for_prefect() -> None:
    """Back pressure: Prefect's client buffers events without bound until its server takes them, so
    shards that come faster wait here, up to a limit in case the server hangs."""
    wait_until(
        lambda: EventsWorker.instance()._queue.qsize() <= _MOST_EVENTS, _WAIT_S, every_s=0.01
    )
