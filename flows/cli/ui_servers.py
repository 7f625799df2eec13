"""The MLflow and Prefect servers of `tld ui`, as child processes on one workspace."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient

from data_catalog.storage.workspace import Workspace
from flows.orchestration.prefect_app import login_link
from flows.orchestration.prefect_home import prepare_home
from flows.orchestration.prefect_server import server_command, server_environment
from flows.terminal.console import console
from flows.terminal.errors import UserError
from flows.tracking.local_store import artifact_location
from flows.tracking.pages import experiment_page, experiments_page, run_page_address
from flows.tracking.run_names import newest_run
from flows.tracking.store import is_given, open_client, tracking_uri
from pipeline.compute.polling import wait_until
from pipeline.config.run import RunConfig
from pipeline.stages.contract import StageFailed

_LAST_PORT = 65535
_START_S = 90  # until a server accepts connections


def serve_ui(config: RunConfig, port: int) -> None:
    """Serve both web pages on loopback until Ctrl-C.

    Raises:
        UserError: the port is taken, or there is nothing to show.
        StageFailed: a server does not start.
    """
    if not 1 <= port <= _LAST_PORT - 1:
        raise UserError(
            f"--port must be from 1 to {_LAST_PORT - 1}, because Prefect uses the next port; got "
            f"{port}"
        )
    workspace = Workspace(config.folder)
    if not is_given(config.folder) and not workspace.mlflow_database.exists():
        raise UserError(
            f"nothing to show yet: there is no {workspace.mlflow_database.name} in "
            f"{config.folder.absolute()}; start with tld run"
        )
    uri = tracking_uri(config.folder)
    if uri.startswith("http"):
        raise UserError(
            "MLFLOW_TRACKING_URI is already a server: open it in the browser, or unset it to show "
            "the workspace"
        )
    # Reports a damaged database, and corrects the artifact paths of a moved workspace.
    client = open_client(config.folder)
    prepare_home(workspace.prefect_home)
    prefect_environment = server_environment(workspace.prefect_home, port + 1, ui=True)
    log = workspace.prefect_home / "server.log"
    with (
        _running("MLflow", _mlflow_command(config, uri, port), _mlflow_environment(uri), port),
        _running("Prefect", server_command(port + 1), prefect_environment, port + 1, log),
    ):
        for line in mlflow_links(client, config, f"http://127.0.0.1:{port}"):
            console.print(line)
        # The link contains the password, so that other users of this machine and web pages cannot
        # use the server.
        secret = prefect_environment["PREFECT_SERVER_API_AUTH_STRING"]
        console.print(f"Prefect  {login_link(port + 1, secret)}\nCtrl-C stops both.")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def mlflow_links(client: MlflowClient, config: RunConfig, server: str) -> Iterator[str]:
    """Lines with the addresses of the runs of this name, and of the newest with these settings."""
    experiment = client.get_experiment_by_name(config.name)
    if not experiment:
        yield f"MLflow   {experiments_page(server)}"
        return
    yield f"MLflow   {experiment_page(server, experiment.experiment_id)}"
    if run_id := newest_run(client, experiment.experiment_id, config):
        yield f"run      {run_page_address(server, experiment.experiment_id, run_id)}"


def _mlflow_command(config: RunConfig, uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if uri.startswith("sqlite"):
        command += ["--default-artifact-root", artifact_location(config.folder)]
    return command


def _mlflow_environment(uri: str) -> dict[str, str]:
    """The store is a variable because its URI may contain a password, and command lines are shown
    in the list of processes."""
    return {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # uvicorn puts this folder first on the path: by default the current one.
        "UVICORN_APP_DIR": sysconfig.get_path("stdlib"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


@contextlib.contextmanager
def _running(
    name: str, command: list[str], environment: dict[str, str], port: int, log: Path | None = None
) -> Iterator[None]:
    """A server process that accepts connections, for the length of the block."""
    if _accepts(port):
        raise UserError(f"port {port} for {name} is taken; choose another with --port")
    with (log or Path(os.devnull)).open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: _accepts(port) or process.poll() is not None, _START_S, every_s=0.2)
        if not _accepts(port):
            why = f"see {log}" if log else f"try `{' '.join(command[:4])}` to see why"
            raise StageFailed(f"{name} did not start on port {port}; {why}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
