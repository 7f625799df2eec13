"""Shards as Prefect tasks, which are retried if their worker dies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events.worker import EventsWorker
from prefect.runtime import task_run
from prefect.tasks import Task

from pipeline.compute.polling import wait_until
from pipeline.compute.shard_map import TRIES, given_up, map_in_pool
from pipeline.compute.worker_pool import OpenPool, Pool, WorkerDied

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST_EVENTS = 1000  # in the client's queue; a shard adds four
_WAIT_S = 10.0


def map_shards(
    open_pool: OpenPool,
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: int,
    deadline_s: float | None = None,
) -> Iterator[Result]:
    """Run each shard as a Prefect task in a thread, which passes it to a pool of workers that have
    loaded their models."""
    return map_in_pool(make_worker, items, workers, deadline_s, open_pool, _run_as_task)


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


def _run_as_task(pool: Pool[Item, Result], item: Item) -> Result:
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
