"""The interface of worker_pool.py on the actors of a Ray cluster, or of Ray on this machine. Knows
nothing of stages.

Ray is optional, and imported where it is used: here and in ray_nodes.py. Ray places the actors,
notices that a node is gone, and ends them with this process; a shard whose actor is lost is the
caller's to try again.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from pipeline.compute.worker_pool import Answering, Item, PoolClosed, Result, WorkerDied
from pipeline.config.run import EngineConfig
from pipeline.config.section import ConfigError

_MAX_FAILED_STARTS = 10  # that may fail, as on a node that is gone before the cluster knows
_CONNECT_S = 5.0
_PROBE_S = 60.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without GPUs sees none from a later version on: say nothing
}
_PROBE = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]))
"""


class RayPool(Generic[Item, Result]):
    """At most `workers` actors, spread over the nodes; see pool.OpenPool.

    A shard goes to whichever actor is ready first, so that one which finds no room in the cluster
    holds up none.
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
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = (
            queue.Queue()
        )  # an actor, and why it could not start
        self._alive: set[Any] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._failed_starts = 0
        self._connected_here = False

    def run(self, item: Item) -> Result:
        """Work on one item in whichever actor is free. Raises what the worker raised, WorkerDied or
        ConfigError."""
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
        """The next that is ready. Where a node went away before an actor was, another starts in its
        place."""
        from ray.exceptions import RayActorError, RayTaskError

        while True:
            self._start_one()
            actor, error = self._ready.get()
            if self._closed:  # Ray would begin anew for whoever asks an actor after its end
                self._ready.put((actor, error))  # for the next who waits
                raise PoolClosed("the pool is closed: the stage is being stopped")
            if error is None:
                self._failed_starts = 0
                return actor
            self._discard(actor)
            self._failed_starts += 1
            if not isinstance(error, RayActorError) or error.actor_init_failed:
                why = error.cause if isinstance(error, RayTaskError) else error
                raise ConfigError(
                    f"engine: a node of the Ray cluster cannot work on this run: {why}"
                )
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise WorkerDied(
                    f"{_MAX_FAILED_STARTS} actors in a row could not start: {_first_line(error)}"
                )

    def _ask(self, actor: Any, item: Item) -> tuple[Exception | None, Any]:
        """Send an item, wait for the answer: an error or a result."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            error, result = ray.get(actor.answer.remote(item), timeout=self._deadline_s)
        except GetTimeoutError:
            raise WorkerDied(
                f"an actor was ended: it did not finish within {self._deadline_s:g} s"
            ) from None
        except RayError as lost:
            raise WorkerDied(f"an actor was lost: {_first_line(lost)}") from lost
        return error, result

    def _start_one(self) -> None:
        """Begin an actor where there is a place for one, and go on: it reports when it is ready."""
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
        """Leave its place to another, and make sure that it is not there any more."""
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
        self._ready.put((None, None))  # who waits shall see that it is closed
        if self._connected_here:
            ray.shutdown()


class Actor:
    """A worker on some node."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        self._answer = Answering(make_worker)
        self._folder = folder

    def begin(self) -> None:
        """Relative paths of the settings mean here what they mean where the command was typed."""
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise ConfigError(
                f"{socket.gethostname()} has no folder {self._folder}: {error.strerror}; run from "
                "a folder that all "
                "nodes share under the same path, with the workspace in it"
            ) from None

    def answer(self, item: Any) -> tuple[Exception | None, Any]:
        """An error or a result."""
        return self._answer(item)


def connect(address: str | None, workers: int) -> bool:
    """Join the cluster, quietly; whether that was not so before. Raises ConfigError."""
    os.environ.update(_QUIET)
    import ray

    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    here: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **here
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(_unreachable(address, str(error))) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
    return True


def ray_problems(engine: EngineConfig, encode_device: str, training_nodes: int) -> Iterator[str]:
    """Why a run could not work on this engine, where that can be known before."""
    if not importlib.util.find_spec("ray"):
        yield "engine.kind: ray is not installed; install it with: pip install '.[ray]', or set engine.kind=local"
        return
    if encode_device.startswith("cuda") and not engine.gpus_per_worker:
        yield f"encode.device: {encode_device}, but engine.gpus_per_worker is 0; set engine.gpus_per_worker=1"
    if engine.address is None:
        if training_nodes > 1:
            yield f"train.launch.nodes: {training_nodes}, and without engine.address Ray is on this machine alone"
        return
    try:
        nodes = _nodes(engine.address)
    except ConfigError as error:
        yield str(error)
        return
    if len(nodes) < training_nodes:
        yield f"train.launch.nodes: {training_nodes}, but the Ray cluster has {len(nodes)}"
    most_gpus = max(node.get("GPU", 0) for node in nodes)
    if most_gpus < engine.gpus_per_worker:
        yield f"engine.gpus_per_worker: {engine.gpus_per_worker:g}, but no node of the cluster has more than {most_gpus:g}"
    if most_gpus and not engine.gpus_per_worker and encode_device == "auto":
        yield "engine.gpus_per_worker: 0, but the cluster has GPUs; set engine.gpus_per_worker=1, or encode.device=cpu"


def _nodes(address: str) -> list[dict[str, float]]:
    """The resources of each node, asked for by a process of its own: Ray waits minutes for what is
    no cluster, and may end the process that asks. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(_unreachable(address, str(error))) from error
    command = [sys.executable, "-c", _PROBE, address]
    try:
        probe = subprocess.run(
            command,
            env=os.environ | _QUIET,
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            _unreachable(address, f"no answer of a Ray cluster within {_PROBE_S:g} s")
        ) from None
    if probe.returncode:
        raise ConfigError(_unreachable(address, _why(probe.stderr)))
    nodes: list[dict[str, float]] = json.loads(probe.stdout.splitlines()[-1])
    return nodes


def _why(stderr: str) -> str:
    """What Ray said of a cluster that it could not join, in a line. Of a missing token it speaks
    only on the way."""
    if "InvalidAuthToken" in stderr:
        return "it wants a token; set RAY_AUTH_MODE=token here, and have the head's ~/.ray/auth_token here too"
    return (stderr.strip() or "no reason given").splitlines()[-1]


def _unreachable(address: str | None, why: str) -> str:
    if address is None:
        return f"engine: Ray does not start on this machine: {why}"
    return f"engine.address: cannot reach a Ray cluster at {address}: {why}; `ray status` on its head shows its address"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
