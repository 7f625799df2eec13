"""What a stage asks of its machine, in MLflow's tab "System metrics": processors, memory, disk,
network, GPUs.

The samplers are MLflow's. Its thread is not used: it asks the server before each sample, and ends
where none answers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from itertools import count

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from pipeline.stages.contract import Tracker

_EVERY_S = 10.0

# A GPU that does not tell its power would be news at each sample.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)


@contextlib.contextmanager
def watched(track: Tracker) -> Iterator[None]:
    """Sample now and then for the length of the block, and once at its end: the shortest stage has
    one."""
    ended = threading.Event()
    samplers = _samplers()
    thread = threading.Thread(
        target=_sample, args=(samplers, track, ended), name="system metrics", daemon=True
    )
    _values(samplers)  # how busy processors were is counted from here
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sample(samplers: list[BaseMetricsMonitor], track: Tracker, ended: threading.Event) -> None:
    for step in count():
        last = ended.wait(_EVERY_S)
        track.metrics(_values(samplers), step)
        if last:
            return


def _values(samplers: list[BaseMetricsMonitor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for sampler in samplers:
        sampler.collect_metrics()
        values |= {f"system/{name}": value for name, value in sampler.aggregate_metrics().items()}
        sampler.clear_metrics()
    return values


def _samplers() -> list[BaseMetricsMonitor]:
    samplers = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(RuntimeError, ImportError):  # no NVIDIA driver
        samplers.append(GPUMonitor())
    return samplers
