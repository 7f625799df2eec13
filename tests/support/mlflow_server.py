"""An MLflow tracking server, and its sudden end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient

from pipeline.compute.polling import wait_until
from tests.support.waiting import is_answering


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
        health = f"http://127.0.0.1:{port}/health"
        assert wait_until(lambda: is_answering(health), 90, every_s=0.2)
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
