"""The Prefect server of a command, and the check of servers that the environment names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.storage.workspace import Workspace
from flows.terminal.first_sign import first_sign
from flows.terminal.run_log import run_log
from flows.terminal.run_record import recorded_run
from flows.terminal.verbosity import show_library_logs

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_STARTING = "starting (Prefect, MLflow) …"


@contextlib.contextmanager
def with_prefect(settings: RunConfig, stages: Sequence[str]) -> Iterator[None]:
    """A Prefect server for the length of the block, and the record and the log of a run of these
    stages. The start takes seconds, so the terminal shows what is starting.

    Raises:
        UserError: as check_servers, before anything is recorded.
        PrefectServerError: our own Prefect server does not start.
    """
    from flows.orchestration.prefect_address import answers
    from flows.orchestration.prefect_server import prefect_server
    from flows.orchestration.prefect_watch import watched
    from flows.terminal.errors import at_work

    with at_work(settings.folder), contextlib.ExitStack() as stack:
        check_servers(settings)
        stack.enter_context(recorded_run(settings, stages))
        with first_sign(_STARTING):
            if url := os.environ.get("PREFECT_API_URL"):
                stack.enter_context(watched(url, answers))
            prepare = partial(_prepare_flow, settings.folder)
            stack.enter_context(prefect_server(Workspace(settings.folder).prefect_home, prepare))
            import flows.text_to_image  # noqa: F401  # it has Prefect set up logging

            show_library_logs()
            stack.enter_context(run_log(settings.folder))
        yield


def check_servers(settings: RunConfig) -> None:
    """Raise UserError if the Prefect or MLflow server that the environment names does not answer,
    or TensorBoard, for which it asks, is not installed."""
    with first_sign(_STARTING):
        if os.environ.get("TLD_TENSORBOARD"):
            from flows.tracking.tensorboard_tracker import check_tensorboard

            check_tensorboard()
        if os.environ.get("MLFLOW_TRACKING_URI"):
            from flows.tracking.store import check_given_store

            check_given_store(settings.folder)
        if url := os.environ.get("PREFECT_API_URL"):
            from flows.orchestration.prefect_address import check_address

            check_address(url)


def _prepare_flow(root: Path) -> None:
    """Import the flow with its libraries, and create MLflow's database in a new workspace."""
    import flows.text_to_image  # noqa: F401
    from flows.tracking.store import is_given, open_client

    if not is_given(root) and not Workspace(root).mlflow_database.exists():
        open_client(root)
