"""An MLflow tracking server, and its sudden end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real tracking server, until it is killed or the block ends."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    quiet = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *store,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        command,
        env=quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2),
            ):
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield process
    finally:
        kill(process)


def loss_steps(address: str) -> list[int]:
    """The steps of which a server knows the loss, of the one training that was made under the name
    `tiny`."""
    client = MlflowClient(address)
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    (run,) = client.search_runs(
        [experiment.experiment_id], "tags.`tld.stage` = 'train' and tags.`tld.state` = 'made'"
    )
    return [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
