"""The beginning and the end of runs in MLflow, whether it is reachable or not."""

from __future__ import annotations

import contextlib
import getpass
import socket
import uuid
from collections.abc import Iterator

from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from data_catalog.redaction import redact_credentials
from flows.tracking.messages import OUR_ID, end_message, now_ms
from flows.tracking.open_runs import OpenRuns
from flows.tracking.outbox import Message, Outbox
from flows.tracking.store import Store
from pipeline.config.command_line import typed_command
from pipeline.config.distribution import tld_commit, tld_version_and_commit


def begin_run(store: Store, open_runs: OpenRuns, outbox: Outbox, tags: dict[str, str]) -> str:
    """Begin a run in MLflow. If that fails, the run gets an id of ours, and the outbox creates it
    in MLflow later."""
    started = now_ms()
    tags = {**tags, "tld.host": socket.gethostname()}
    if not outbox.server_is_away:
        with contextlib.suppress(MlflowException, SQLAlchemyError, RequestException):
            run_id = str(store.client.create_run(store.experiment_id, started, tags).info.run_id)
            open_runs.add(run_id)
            return run_id
    run_id = uuid.uuid4().hex
    body = {
        "experiment_id": store.experiment_id,
        "start_time": started,
        "tags": {**tags, OUR_ID: run_id},
    }
    outbox.put(Message(run_id, "create", body))
    return run_id


def origin_tags() -> dict[str, str]:
    """Tags that say what made a run: the command, the version and commit of tld, and the user.
    Those of MLflow's own names fill the columns and fields of its pages."""
    commit, command = tld_commit(), typed_command()
    tags = {
        "mlflow.source.name": "tld",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit.removesuffix("-dirty"),
        "tld.version": tld_version_and_commit(),
        "tld.command": command,
    }
    with contextlib.suppress(OSError, KeyError):  # in a container the user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return {name: text for name, text in tags.items() if text}


@contextlib.contextmanager
def closing_run(outbox: Outbox, run_id: str) -> Iterator[None]:
    """End a run as its block ends: FINISHED, FAILED, or KILLED by an interrupt."""
    try:
        yield
    except Exception as error:
        outbox.put(Message(run_id, "tags", {"tld.error": redact_credentials(str(error))[:5000]}))
        outbox.put(end_message(run_id, "FAILED"))
        raise
    except BaseException:
        outbox.put(end_message(run_id, "KILLED"))
        raise
    outbox.put(end_message(run_id, "FINISHED"))
