"""Opening MLflow before any work: its address, its client, and the run's experiment.

A store that cannot be used is reported here, once, with what to do about it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import sqlalchemy
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from data_catalog.redaction import redact_credentials
from data_catalog.storage.file_lock import LockTimeout, file_lock
from data_catalog.storage.workspace import Workspace
from flows.terminal.errors import UserError
from flows.tracking.local_store import (
    WorkspaceClient,
    artifact_location,
    check_file,
    correct_paths,
    sqlite_url,
)
from flows.tracking.outbox import is_away
from pipeline.config.run import RunConfig
from pipeline.stages.contract import StageFailed

# Users need not see that a database is created; its errors come as exceptions too, without a
# traceback.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)

_OPEN_TIMEOUT_S = 120.0
_NO_SUCH_ENDPOINT = ("ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED")
NEEDS_NEWER_SERVER = "this MLflow server is older than version 3 and has no logged models"
_MOVE_IT_AWAY = (
    "move it away; only the record of runs is lost, no output\n  mv {file} {file}.damaged"
)
_REMEDIES = {  # by a part of the error's text
    "database is locked": "another process has locked it; wait for that process, or stop it",
    "readonly database": "make the file and its folder writable",
    "unable to open database file": "make the file and its folder readable and writable",
    "database schema": "it belongs to another version of MLflow. Install that version, or, if it "
    f"is an older one, run\n  mlflow db upgrade {{uri}}\nor {_MOVE_IT_AWAY}",
    "Can't locate revision": "it belongs to a newer version of MLflow. Install that version, or "
    f"{_MOVE_IT_AWAY}",
    "": _MOVE_IT_AWAY,
}


class RecordUnusable(StageFailed):
    """MLflow's database in the workspace cannot be used."""


@dataclass(frozen=True, slots=True)
class Store:
    """MLflow, the id of the run's experiment, and whether MLflow stores models, which servers
    before version 3 do not."""

    client: MlflowClient
    experiment_id: str
    keeps_models: bool
    name: str  # distinguishes the stores that the runs of a workspace may be recorded in


def open_store(config: RunConfig) -> Store:
    """The store with the run's experiment, which is created if there is none.

    Raises:
        UserError: the store that MLFLOW_TRACKING_URI names cannot be used.
        RecordUnusable: the database in the workspace cannot be used.
    """
    client = open_client(config.folder)
    with explained(config.folder):
        experiment_id = _experiment_of(client, config)
        name = (
            hashlib.sha256(client.tracking_uri.encode()).hexdigest()[:8]
            if is_given(config.folder)
            else "workspace"
        )
        return Store(client, experiment_id, _keeps_models(client, experiment_id), name)


def check_given_store(root: Path) -> None:
    """Check the store that MLFLOW_TRACKING_URI names, before anything is started. Raises UserError
    within ten seconds if it does not answer."""
    if is_given(root):
        client = open_client(root)
        with explained(root):
            client.search_experiments(max_results=1)


def client_to_read(root: Path) -> MlflowClient:
    """A client of the store that creates nothing in the workspace. Raises UserError or
    RecordUnusable."""
    with explained(root):
        _try_database(tracking_uri(root))
        return MlflowClient(tracking_uri=tracking_uri(root))


def open_client(root: Path) -> MlflowClient:
    """A client of the store. Processes that open it at the same time take turns, because each would
    create the database. Raises UserError or RecordUnusable."""
    root.mkdir(parents=True, exist_ok=True)
    database = Workspace(root).mlflow_database
    with explained(root), file_lock(database.with_suffix(".lock"), _OPEN_TIMEOUT_S):
        if is_given(root):
            _try_database(tracking_uri(root))
            return MlflowClient(tracking_uri=tracking_uri(root))
        check_file(database)
        # Created with the umask's mode, so that a group may share it: SQLite would let only its
        # owner write.
        database.touch()
        client = WorkspaceClient(root)
        correct_paths(root)
        return client


def is_given(root: Path) -> bool:
    """Whether MLFLOW_TRACKING_URI names another store than the workspace's own. MLflow itself sets
    the variable when it loads models by name."""
    return os.environ.get("MLFLOW_TRACKING_URI") not in (None, "", _own_uri(root))


def tracking_uri(root: Path) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, or SQLite in the workspace. Raises UserError if
    the address is malformed."""
    if not is_given(root):
        return _own_uri(root)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(_unusable(uri, error)) from None
    if parts.scheme not in ("http", "https") or not parts.username:
        return uri
    # Errors show the address, so the password moves to variables that MLflow reads too.
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2])
    )
    return os.environ["MLFLOW_TRACKING_URI"]


def _own_uri(root: Path) -> str:
    return sqlite_url(Workspace(root).mlflow_database.resolve())


def _experiment_of(client: MlflowClient, config: RunConfig) -> str:
    """The experiment with the run's name, created if there is none."""
    experiment = client.get_experiment_by_name(config.name)
    if not experiment:
        artifacts = None if is_given(config.folder) else artifact_location(config.folder)
        try:
            return str(client.create_experiment(config.name, artifact_location=artifacts))
        except MlflowException:
            experiment = client.get_experiment_by_name(config.name)
            if not experiment:  # else another process has created it meanwhile
                raise
    if experiment.lifecycle_stage == "deleted":
        where = (
            ""
            if is_given(config.folder)
            else f"MLFLOW_TRACKING_URI={shlex.quote(client.tracking_uri)} "
        )
        raise UserError(
            f"the experiment {config.name!r} was deleted in MLflow; restore it with\n"
            f"  {where}mlflow experiments restore --experiment-id {experiment.experiment_id}\n"
            "or record this run in another experiment, with name=…"
        )
    return str(experiment.experiment_id)


def _keeps_models(client: MlflowClient, experiment_id: str) -> bool:
    if urlsplit(client.tracking_uri).scheme not in ("http", "https"):
        return True
    try:
        client.search_logged_models([experiment_id], max_results=1)
    except MlflowException as error:
        if error.error_code in _NO_SUCH_ENDPOINT:
            return False
        raise
    return True


def _try_database(uri: str) -> None:
    """Query a database once, because MLflow itself would retry ten times, for minutes. Raises
    SQLAlchemyError or ImportError."""
    if urlsplit(uri).scheme.partition("+")[0] in ("postgresql", "mysql", "mssql", "sqlite"):
        engine = sqlalchemy.create_engine(uri)
        try:
            sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn errors of a store that does not open into messages with what to do."""
    try:
        yield
    except LockTimeout as error:
        raise StageFailed(str(error)) from None
    except (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, ImportError) as error:
        if "disk is full" in str(error):
            raise
        if is_given(root):
            raise UserError(_unusable(tracking_uri(root), error)) from error
        database, reason = Workspace(root.absolute()).mlflow_database, _first_line(error)
        template = next(remedy for text, remedy in _REMEDIES.items() if text in str(error))
        remedy = template.format(
            file=shlex.quote(str(database)), uri=shlex.quote(tracking_uri(root))
        )
        raise RecordUnusable(f"MLflow cannot use {database} ({reason}): {remedy}") from error


def _unusable(uri: str, error: Exception) -> str:
    where = f"MLFLOW_TRACKING_URI={redact_credentials(uri)}"
    if is_away(error):
        return f"no MLflow answers at {where}; start it, or unset MLFLOW_TRACKING_URI"
    reason = redact_credentials(_first_line(error))
    return f"MLflow cannot use {where}: {reason}; fix that, or unset MLFLOW_TRACKING_URI"


def _first_line(error: Exception) -> str:
    """The first sentence of an error, without the SQL that SQLAlchemy adds."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(". ")[0][:300]
