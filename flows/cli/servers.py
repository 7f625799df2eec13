"""The servers of a command: Prefect's own, and the check of those that are given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
from flows.terminal.console import errors


@contextlib.contextmanager
def with_prefect(settings: RunConfig) -> Iterator[None]:
    """A Prefect server for the length of the block; its start takes seconds, so say what is
    awaited.

    Raises UserError where a server of Prefect or MLflow that is given does not answer,
    PrefectServerError where ours does not start.
    """
    from data_catalog.storage.workspace import Workspace
    from flows.orchestration.prefect_address import answers, check_address
    from flows.orchestration.prefect_server import prefect_server
    from flows.orchestration.prefect_watch import watched
    from flows.terminal.errors import at_work
    from flows.tracking.store import check_given_store

    with at_work(settings.folder), contextlib.ExitStack() as stack:
        with errors.status("starting Prefect and MLflow …"):
            check_given_store(settings.folder)
            if given := os.environ.get("PREFECT_API_URL"):
                check_address(given)
                stack.enter_context(watched(given, answers))
            stack.enter_context(prefect_server(Workspace(settings.folder).prefect_home))
        yield
