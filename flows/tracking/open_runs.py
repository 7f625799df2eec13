"""Runs that a process has open in MLflow, and the end of those whose process was killed.

The ids are in a file that the process locks. If the process is killed, the next one that opens the
same store ends them. A lock works for containers too, where every process has number 1.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from data_catalog.storage.file_lock import locked, try_lock
from flows.tracking.outbox import is_away
from flows.tracking.store import Store


class OpenRuns:
    """The open runs of this process, until `close`."""

    def __init__(self, root: Path, store: Store) -> None:
        self._path = root / f"mlflow-open-{store.name}.{uuid.uuid4().hex}"
        self._file = locked(self._path, 0)

    def add(self, run_id: str) -> None:
        """Add a run that has begun."""
        self._file.write(f"{run_id}\n")
        self._file.flush()

    def close(self) -> None:
        """Remove the file: all runs have ended, or the outbox will end them."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def end_abandoned(root: Path, store: Store) -> None:
    """End the runs that killed processes left RUNNING."""
    for path in root.glob(f"mlflow-open-{store.name}.*"):
        if file := try_lock(path):
            with file:
                for run_id in file.read().split():
                    _end(store.client, run_id)
                path.unlink(missing_ok=True)


def _end(client: MlflowClient, run_id: str) -> None:
    try:
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")
    except MlflowException as error:  # the run was deleted meanwhile
        if is_away(error):
            raise
