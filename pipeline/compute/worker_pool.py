"""A pool of worker processes that load their models once, and its interface (also of ray_pool.py).

A worker that dies, stalls or exceeds the deadline of its shard is replaced, and the shard can be
retried. Workers end when this process does.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from pipeline.compute.parent_watch import end_with_parent
from pipeline.compute.spawned_process import start_without_script
from pipeline.compute.stalled_process import Standstill
from pipeline.compute.worker_numbers import worker_name

Item = TypeVar("Item")
Result = TypeVar("Result")
_CHECK_EVERY_S = 5.0
_STANDSTILL_S = 120.0


class WorkerDied(RuntimeError):
    """A worker ended (out of memory, crash, deadline); its shard can be retried."""


class ShardFailed(RuntimeError):
    """Every worker died on a shard, or none could be started; the message says what to do."""

    exit_code = 1


class PoolClosed(RuntimeError):
    """An item was submitted to a pool that is being closed."""


class Pool(Protocol[Item, Result]):
    """Workers that exist as long as the context is entered, on this machine or elsewhere."""

    def run(self, item: Item) -> Result:
        """Process one item in any free worker. Raises what the worker raised, or WorkerDied."""

    def __enter__(self) -> Pool[Item, Result]: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
        /,
    ) -> None: ...


class OpenPool(Protocol):
    """Create a pool of at most `workers` workers, each of which calls `make_worker()` once and then
    processes items."""

    def __call__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        workers: int,
        deadline_s: float | None = None,
    ) -> Pool[Item, Result]: ...


class Run(Protocol):
    """Process an item with a pool."""

    def __call__(self, pool: Pool[Item, Result], item: Item, /) -> Result: ...


@dataclass(slots=True)
class Answering(Generic[Item, Result]):
    """The loop body of a worker: initializes itself at the first item, and returns an error or a
    result for each."""

    make_worker: Callable[[], Callable[[Item], Result]]
    work: Callable[[Item], Result] | None = None

    def __call__(self, item: Item) -> tuple[Exception | None, Result | None]:
        try:
            self.work = self.work or self.make_worker()
            return None, self.work(item)
        except Exception as error:
            error.add_note(traceback.format_exc())
            return error, None


@dataclass(frozen=True, slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    number: int


class ShardPool(Generic[Item, Result]):
    """A pool of processes on this machine; see OpenPool."""

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        workers: int,
        deadline_s: float | None = None,
    ) -> None:
        self._make_worker = make_worker
        self._deadline_s = deadline_s
        self._idle: queue.Queue[_Worker | int] = queue.Queue()
        self._alive: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        for number in range(workers):
            self._idle.put(number)  # an empty slot: the first item that takes it starts a worker

    def run(self, item: Item) -> Result:
        """Process one item in any free worker.

        Raises:
            WorkerDied: The worker ended before it returned a result.
            ShardFailed: No worker could be started.
            Exception: Whatever the worker raised.
        """
        slot = self._idle.get()
        try:
            worker = slot = slot if isinstance(slot, _Worker) else self._start(slot)
            error, result = self._ask(worker, item)
        except WorkerDied:
            slot = worker.number  # the next item starts another worker there
            raise
        finally:
            self._idle.put(slot)
        if error is not None:
            raise error
        answer: Result = result
        return answer

    def _ask(self, worker: _Worker, item: Item) -> tuple[Exception | None, Any]:
        """Send an item and wait for an error or a result."""
        try:
            worker.pipe.send(item)
            if not (why := self._wait_for_answer(worker)):
                error, result = worker.pipe.recv()
                return error, result
            worker.process.kill()
            why = f"was killed because it {why}"
        except (EOFError, OSError):
            worker.process.join(5)
            code = worker.process.exitcode
            why = f"ended with exit code {code}{_exit_reason(code)}"
        with self._lock:
            self._alive.discard(worker)
        raise WorkerDied(f"a worker process {why}")

    def _wait_for_answer(self, worker: _Worker) -> str | None:
        """Wait until a worker answers or ends. If it does not, returns why the wait was abandoned.

        A worker with a deadline is allowed to stall, because it may be waiting for servers.
        """
        if self._deadline_s is not None:
            return (
                None
                if worker.pipe.poll(self._deadline_s)
                else f"did not finish within {self._deadline_s:g} s"
            )
        standstill = Standstill(worker.process.pid or 0)
        while not worker.pipe.poll(_CHECK_EVERY_S):
            if standstill.seconds() > _STANDSTILL_S:
                return (
                    f"did nothing for {_STANDSTILL_S:g} s; most likely it could not allocate "
                    "memory or start a thread"
                )
        return None

    def _start(self, number: int) -> _Worker:
        with self._lock:
            if self._closed:
                raise PoolClosed("the pool is closed: the stage is being stopped")
            worker = self._spawn(number)
            self._alive.add(worker)
        return worker

    def _spawn(self, number: int) -> _Worker:
        try:
            ours, theirs = Pipe()
        except OSError as error:
            raise ShardFailed(_could_not_start(error)) from error
        name, args = worker_name(number), (theirs, self._make_worker, os.getpid())
        process = SpawnProcess(target=_work, name=name, args=args, daemon=True)
        try:
            start_without_script(process)
        except OSError as error:
            ours.close()
            raise ShardFailed(_could_not_start(error)) from error
        finally:
            theirs.close()
        return _Worker(process, ours, number)

    def __enter__(self) -> ShardPool[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for worker in alive:
            worker.process.terminate()
        for worker in alive:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _could_not_start(error: OSError) -> str:
    return (
        f"a worker process could not be started: {error.strerror or error}. Allow more processes, "
        "memory and open files (`ulimit -u`, `-v`, `-n`, or the container's limits), or lower "
        "download.workers and encode.workers.\n"
        "Finished shards are kept: run the same command to resume."
    )


def _exit_reason(code: int | None) -> str:
    return " (killed: most likely out of memory)" if code == -signal.SIGKILL else ""


def _work(pipe: Connection, make_worker: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    """The main loop of a worker process: it sends errors back, and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    end_with_parent(parent, grace_s=0)
    if not os.environ.get("TLD_TRACEBACK"):
        # Destructors may fail because the disk is full, which the error itself reports already.
        sys.unraisablehook = lambda _: None
    answer = Answering(make_worker)
    with suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            pipe.send(answer(pipe.recv()))
