"""A pool of Ray actors with the interface of worker_pool.py, on a cluster or on this machine.

Ray is optional, so it is imported only where it is used: here, in ray_cluster.py and in
train/ray_nodes.py. It places the actors, detects lost nodes, and ends the actors with this process.
The caller retries a shard whose actor is lost.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from pipeline.compute.ray_cluster import connect
from pipeline.compute.worker_pool import Answering, Item, PoolClosed, Result, WorkerDied
from pipeline.config.section import ConfigError

_MAX_FAILED_STARTS = 10  # in a row, as on a node that is lost before the cluster notices


class RayPool(Generic[Item, Result]):
    """At most `workers` actors, spread over the nodes; see worker_pool.OpenPool.

    A shard goes to the first actor that is ready, so an actor for which the cluster has no room
    delays no shard.
    """

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        workers: int,
        deadline_s: float | None = None,
        address: str | None = None,
        gpus: float = 0,
    ) -> None:
        self._make_worker = make_worker
        self._workers = workers
        self._deadline_s = deadline_s
        self._address = address
        self._gpus = gpus
        # An actor, and the error with which it failed to start, if any.
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
        self._alive: set[Any] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._failed_starts = 0
        self._connected_here = False

    def run(self, item: Item) -> Result:
        """Process one item in any free actor.

        Raises:
            WorkerDied: The actor was lost, or too many actors failed to start.
            ConfigError: A node of the cluster cannot run the worker.
            Exception: Whatever the worker raised.
        """
        actor = self._ready_actor()
        try:
            error, result = self._ask(actor, item)
        except WorkerDied:
            self._discard(actor)
            raise
        self._ready.put((actor, None))
        if error is not None:
            raise error
        answer: Result = result
        return answer

    def _ready_actor(self) -> Any:
        """The next ready actor. If a node is lost before its actor is ready, another actor starts
        in its place."""
        from ray.exceptions import RayActorError, RayTaskError

        while True:
            self._start_one()
            actor, error = self._ready.get()
            if self._closed:  # Ray would start again if an actor were called after its end
                self._ready.put((actor, error))  # for the next waiting thread
                raise PoolClosed("the pool is closed: the stage is being stopped")
            if error is None:
                self._failed_starts = 0
                return actor
            self._discard(actor)
            self._failed_starts += 1
            if not isinstance(error, RayActorError) or error.actor_init_failed:
                why = error.cause if isinstance(error, RayTaskError) else error
                raise ConfigError(
                    f"engine: a node of the Ray cluster cannot run the workers of this run: {why}"
                )
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise WorkerDied(
                    f"{_MAX_FAILED_STARTS} actors in a row could not start: {_first_line(error)}"
                )

    def _ask(self, actor: Any, item: Item) -> tuple[Exception | None, Any]:
        """Send an item and wait for an error or a result."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            error, result = ray.get(actor.answer.remote(item), timeout=self._deadline_s)
        except GetTimeoutError:
            raise WorkerDied(
                f"an actor was killed because it did not finish within {self._deadline_s:g} s"
            ) from None
        except RayError as lost:
            raise WorkerDied(f"an actor was lost: {_first_line(lost)}") from lost
        return error, result

    def _start_one(self) -> None:
        """Start an actor if one more is allowed, without waiting: it reports when it is ready."""
        import ray

        with self._lock:
            if self._closed or not self._ready.empty() or len(self._alive) == self._workers:
                return
            make = ray.remote(num_cpus=1, num_gpus=self._gpus, scheduling_strategy="SPREAD")(Actor)
            actor = make.remote(self._make_worker, str(Path.cwd()))
            self._alive.add(actor)
        actor.begin.remote().future().add_done_callback(
            lambda begun: self._ready.put((actor, begun.exception()))
        )

    def _discard(self, actor: Any) -> None:
        """Kill an actor, so that another one may take its place."""
        import ray

        with self._lock:
            self._alive.discard(actor)
            if not self._closed:
                ray.kill(actor)

    def __enter__(self) -> RayPool[Item, Result]:
        self._connected_here = connect(self._address, self._workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        import ray

        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for actor in alive:
            ray.kill(actor)
        self._ready.put((None, None))  # wakes waiting threads, which see that the pool is closed
        if self._connected_here:
            ray.shutdown()


class Actor:
    """A worker on a node of the cluster."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        self._answer = Answering(make_worker)
        self._folder = folder

    def begin(self) -> None:
        """Change to the folder of the command, so that relative paths of the settings are valid."""
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise ConfigError(
                f"{socket.gethostname()} has no folder {self._folder}: {error.strerror}; run the "
                "command in a folder that all nodes share under the same path, with the workspace "
                "in it"
            ) from None

    def answer(self, item: Any) -> tuple[Exception | None, Any]:
        """Process an item; returns an error or a result."""
        return self._answer(item)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
