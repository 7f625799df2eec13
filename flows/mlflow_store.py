"""Where MLflow keeps what runs tell: its address, the experiment, and runs that nobody ended. Knows no stages."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from data_catalog.workspace import Workspace
from flows.outbox import is_away
from flows.terminal import UserMistake
from pipeline.config import RunConfig
from pipeline.locks import StillHeld, held, is_alive
from pipeline.stage import StageFailed

# The making of a database is no news to a user; an error of it comes as an exception too, without the traceback.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)

_OTHERS_OPEN_S = 120.0


def open_store(config: RunConfig) -> tuple[MlflowClient, str]:
    """MLflow, and the id of the run's experiment in it. Runs that begin at the same moment take turns: each would make
    the database. Raises UserMistake where no MLflow answers."""
    config.folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(Workspace(config.folder).mlflow_database.with_suffix(".lock"), _OTHERS_OPEN_S):
            _create_database(config)
            client = MlflowClient(tracking_uri=tracking_uri(config.folder))
            experiment_id = experiment_of(client, config)
    except StillHeld as error:
        raise StageFailed(str(error)) from None
    except MlflowException as error:
        if not is_away(error):
            raise
        where = tracking_uri(config.folder)
        raise UserMistake(f"no MLflow answers at MLFLOW_TRACKING_URI={where}; start it, or unset this") from None
    _close_abandoned(client, experiment_id)
    return client, experiment_id


def _create_database(config: RunConfig) -> None:
    """Create the workspace's database with the mode that the umask gives, so that a group may share it:
    SQLite lets only its owner write."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        Workspace(config.folder).mlflow_database.touch()


def experiment_of(client: MlflowClient, config: RunConfig) -> str:
    """The experiment of the run's name, made where there is none."""
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = Workspace(config.folder).mlflow_artifacts.resolve().as_uri() if local else None
    if found := client.get_experiment_by_name(config.name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(config.name, artifact_location=artifacts))
    except MlflowException:
        if made_meanwhile := client.get_experiment_by_name(config.name):
            return str(made_meanwhile.experiment_id)
        raise


def tracking_uri(root: Path) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, or SQLite in the workspace."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{Workspace(root).mlflow_database.resolve()}"
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.username:
        return given
    # Errors tell the address: the password goes where MLflow looks for it too.
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return os.environ["MLFLOW_TRACKING_URI"]


def process_tags() -> dict[str, str]:
    """What a run says of the process that makes it, so that another knows when it has ended."""
    return {"tld.host": socket.gethostname(), "tld.pid": str(os.getpid())}


def _close_abandoned(client: MlflowClient, experiment_id: str) -> None:
    """End runs that a killed process of this machine left RUNNING."""
    running = client.search_runs([experiment_id], filter_string="attributes.status = 'RUNNING'")
    for run in running:
        if run.data.tags.get("tld.host") == socket.gethostname() and not is_alive(run.data.tags.get("tld.pid", "")):
            client.set_terminated(run.info.run_id, "KILLED")
