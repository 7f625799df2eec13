"""Joining a Ray cluster, and the problems of a run with one that can be found beforehand.

Ray is optional, so it is imported only where it is used.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from pipeline.config.distribution import install_command
from pipeline.config.run import EngineConfig
from pipeline.config.section import ConfigError

_CONNECT_S = 5.0
_PROBE_S = 60.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without this, Ray warns that in a later version an actor without GPUs will see none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_PROBE = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]))
"""


def connect(address: str | None, workers: int) -> bool:
    """Join the cluster quietly. Returns False if this process had joined it before. Raises
    ConfigError."""
    os.environ.update(_QUIET)
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    here: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray replaces this handler
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Else Ray puts the current folder first on the path of all actors, where a folder
            # `pipeline` would stand in for this one.
            job_config=JobConfig(_client_job=True),
            **here,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(_unreachable(address, str(error))) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
    return True


def ray_problems(engine: EngineConfig, encode_device: str, training_nodes: int) -> Iterator[str]:
    """Problems of a run with this engine that can be found before it starts."""
    if not importlib.util.find_spec("ray"):
        yield (
            f"engine.kind: ray is not installed; install it with: {install_command('ray')}, or set "
            "engine.kind=local"
        )
        return
    if encode_device.startswith("cuda") and not engine.gpus_per_worker:
        yield (
            f"encode.device: {encode_device}, but engine.gpus_per_worker is 0; set "
            "engine.gpus_per_worker=1"
        )
    if engine.address is None:
        if training_nodes > 1:
            yield (
                f"train.launch.nodes: {training_nodes}, but without engine.address Ray runs on "
                "this machine only; set engine.address"
            )
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
        yield (
            f"engine.gpus_per_worker: {engine.gpus_per_worker:g}, but no node of the cluster has "
            f"more than {most_gpus:g}"
        )
    if most_gpus and not engine.gpus_per_worker and encode_device == "auto":
        yield (
            "engine.gpus_per_worker: 0, but the cluster has GPUs; set engine.gpus_per_worker=1, or "
            "encode.device=cpu"
        )


def _nodes(address: str) -> list[dict[str, float]]:
    """The resources of each node. A child process queries them, because Ray waits for minutes if
    the address is not that of a cluster, and may end the process. Raises ConfigError."""
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
            _unreachable(address, f"no answer from a Ray cluster within {_PROBE_S:g} s")
        ) from None
    if probe.returncode:
        raise ConfigError(_unreachable(address, _why(probe.stderr)))
    nodes: list[dict[str, float]] = json.loads(probe.stdout.splitlines()[-1])
    return nodes


def _why(stderr: str) -> str:
    """Why Ray could not join a cluster, in one line: the last line of its output, except for a
    missing token, which it mentions only earlier."""
    if "InvalidAuthToken" in stderr:
        return (
            "it requires a token; set RAY_AUTH_MODE=token here, and copy ~/.ray/auth_token from "
            "the head node to this machine"
        )
    return (stderr.strip() or "no reason given").splitlines()[-1]


def _unreachable(address: str | None, why: str) -> str:
    if address is None:
        return f"engine: Ray could not be started on this machine: {why}"
    return (
        f"engine.address: cannot reach a Ray cluster at {address}: {why}; `ray status` on its head "
        "node shows its address"
    )
