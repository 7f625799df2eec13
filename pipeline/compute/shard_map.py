"""The shard map: applies a worker to shards with back pressure, and retries when a worker dies."""

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

TRIES = 3  # of a shard whose worker dies


class _Finishing(Protocol):
    """A future of any library."""

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


Submitted = TypeVar("Submitted", bound=_Finishing)


def as_finished(
    submit: Callable[[Item], Submitted], items: Iterable[Item], most_at_once: int
) -> Iterator[Submitted]:
    """Submit items and yield their futures as they finish.

    At most `most_at_once` are unfinished at a time, so neither items nor futures accumulate,
    however many shards there are.
    """
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
    """Work on an item, and retry it if its worker dies. Raises what `Pool.run` does, but
    ShardFailed instead of the last WorkerDied."""
    for tries_left in reversed(range(TRIES)):
        try:
            return pool.run(item)
        except WorkerDied as died:
            if not tries_left:
                raise given_up(item, died) from died
    raise AssertionError("unreachable: the last try returns or raises")


def given_up(item: object, died: WorkerDied) -> ShardFailed:
    """The error for a shard whose last try failed: what happened, and what to do."""
    return ShardFailed(
        f"shard {getattr(item, 'name', item)} could not be finished in {TRIES} tries: {died}.\n"
        "If memory ran out, lower download.workers or encode.workers (and encode.batch_size), or "
        "end other programs. If time ran out, raise download.shard_deadline_s or lower "
        "download.shard_size.\n"
        "Finished shards are kept: run the same command to resume."
    )


def map_in_pool(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: int,
    deadline_s: float | None = None,
    open_pool: OpenPool = ShardPool,
    run: Run = run_with_retries,
) -> Iterator[Result]:
    """Yield results as they finish, in any order. Each `run` is called in a thread, in the context
    of the caller. An error ends the map."""
    # The pool closes first, so that we do not wait for a thread that waits for a worker.
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
