"""System metrics of a stage in MLflow: processors, memory, disk, network and GPUs.

The monitors are MLflow's own. Its thread is not used, because it queries the server before each
measurement and ends if the server does not answer.
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

_INTERVAL_S = 10.0

# A GPU without power readings would log a warning at each measurement.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)


@contextlib.contextmanager
def watched(track: Tracker) -> Iterator[None]:
    """Measure every ten seconds for the length of the block, and once at its end, so that the
    shortest stage has one measurement."""
    ended = threading.Event()
    monitors = _monitors()
    thread = threading.Thread(
        target=_measure, args=(monitors, track, ended), name="system metrics", daemon=True
    )
    _values(monitors)  # processor use is counted from here
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _measure(monitors: list[BaseMetricsMonitor], track: Tracker, ended: threading.Event) -> None:
    for step in count():
        last = ended.wait(_INTERVAL_S)
        track.metrics(_values(monitors), step)
        if last:
            return


def _values(monitors: list[BaseMetricsMonitor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values


def _monitors() -> list[BaseMetricsMonitor]:
    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(RuntimeError, ImportError):  # no NVIDIA driver
        monitors.append(GPUMonitor())
    return monitors
