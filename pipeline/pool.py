"""Workers that load their models once: spawned processes behind one interface. Knows nothing of stages.

A worker that dies is replaced and its shard tried again; workers end when this process does.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
TRIES = 3  # of a shard whose worker died


class WorkerDied(RuntimeError):
    """A worker process went away (out of memory, crash): the shard can be tried again."""


@dataclass(frozen=True, slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection


class ShardPool(Generic[Item, Result]):
    """`workers` processes, each of which calls `make_worker()` once and then works on items."""

    def __init__(self, make_worker: Callable[[], Callable[[Item], Result]], workers: int) -> None:
        self._make_worker = make_worker
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._alive: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(workers):
            self._idle.put(self._start())

    def run(self, item: Item) -> Result:
        """Work on one item in whichever worker is free. Raises what the worker raised, or WorkerDied."""
        worker = self._idle.get()
        try:
            worker.pipe.send(item)
            error, result = worker.pipe.recv()
        except (EOFError, OSError) as problem:
            worker.process.join(5)
            code = worker.process.exitcode
            with self._lock:
                self._alive.discard(worker)
                if not self._closed:
                    worker = self._start()
            raise WorkerDied(f"a worker process ended with exit code {code}{_why(code)}") from problem
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _start(self) -> _Worker:
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._make_worker, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._alive.add(worker)
        return worker

    def __enter__(self) -> ShardPool[Item, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._lock:
            self._closed = True
        for worker in self._alive:
            worker.process.terminate()
        for worker in self._alive:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def map_in_pool(
    make_worker: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Results as they finish, in any order. A dead worker costs a second try, an error ends the map."""
    if not items:
        return
    workers = min(workers, len(items))
    with ShardPool(make_worker, workers) as pool, ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(_run_with_retries, pool, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _run_with_retries(pool: ShardPool[Item, Result], item: Item) -> Result:
    for left in reversed(range(TRIES)):
        try:
            return pool.run(item)
        except WorkerDied:
            if not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _why(code: int | None) -> str:
    return " (killed: most likely out of memory)" if code == -signal.SIGKILL else ""


def _work(pipe: Connection, make_worker: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    """The life of a worker process: errors travel back, the parent's end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    end_with_parent(parent, grace_s=0)
    work: Callable[[Any], Any] | None = None
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            work = work or make_worker()
            answer: tuple[Exception | None, Any] = (None, work(item))
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = (error, None)
        pipe.send(answer)


def end_with_parent(parent: int, grace_s: float, then: Callable[[], None] = lambda: None) -> None:
    """Watch for the parent's end (also by kill -9): call `then`, and end this process after `grace_s`."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        then()
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
