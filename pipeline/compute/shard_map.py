"""Applies a worker to shards: bounded back pressure, tries again where a worker dies, results as
they finish."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from pipeline.compute.worker_pool import (
    Item,
    OpenPool,
    Pool,
    Result,
    Run,
    ShardFailed,
    ShardPool,
    WorkerDied,
)

TRIES = 3  # of a shard whose worker died


class _Finishing(Protocol):
    """A future, of whichever library."""

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


Submitted = TypeVar("Submitted", bound=_Finishing)


def as_finished(
    submit: Callable[[Item], Submitted], items: Iterable[Item], most_at_once: int
) -> Iterator[Submitted]:
    """Submit items, never more than `most_at_once` before one is finished, and yield their futures
    as they finish: neither items nor futures pile up, however many shards there are."""
    finished: queue.SimpleQueue[Submitted] = queue.SimpleQueue()
    running = 0
    for item in items:
        if running == most_at_once:
            yield finished.get()
            running -= 1
        submit(item).add_done_callback(finished.put)
        running += 1
    for _ in range(running):
        yield finished.get()


def run_with_retries(pool: Pool[Item, Result], item: Item) -> Result:
    """Work on an item; a worker that dies of it costs another try. Raises what `Pool.run` does, and
    ShardFailed in place of the last WorkerDied."""
    for tries_left in reversed(range(TRIES)):
        try:
            return pool.run(item)
        except WorkerDied as died:
            if not tries_left:
                raise given_up(item, died) from died
    raise AssertionError("unreachable: the last try returns or raises")


def given_up(item: object, died: WorkerDied) -> ShardFailed:
    """Of a shard that was tried as often as it may be: what happened, and what can be done."""
    return ShardFailed(
        f"shard {getattr(item, 'name', item)} could not be finished in {TRIES} tries: {died}.\n"
        "Too little memory? Lower download.workers or encode.workers (and encode.batch_size), or "
        "end "
        "other programs. Too little time? Raise download.shard_deadline_s, or lower "
        "download.shard_size.\n"
        "Finished shards are kept: the same command goes on from them."
    )


def map_in_pool(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: int,
    deadline_s: float | None = None,
    open_pool: OpenPool = ShardPool,
    run: Run = run_with_retries,
) -> Iterator[Result]:
    """Results as they finish, in any order, each of a call of `run` in a thread and the caller's
    context. An error ends the map."""
    # The pool closes first, so that no thread is waited for that waits for a worker.
    with (
        ThreadPoolExecutor(workers) as threads,
        open_pool(make_worker, workers, deadline_s) as pool,
    ):

        def submit(item: Item) -> Future[Result]:
            return threads.submit(copy_context().run, run, pool, item)

        try:
            for future in as_finished(submit, items, 2 * workers):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
