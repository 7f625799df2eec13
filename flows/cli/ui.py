"""`tld ui`: MLflow's pages and Prefect's on one workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Overrides
from flows.terminal.console import load


def ui(
    config: Annotated[Path, Parameter(help="The run whose workspace to look at.")] = Path(
        "conf/tiny.yaml"
    ),
    *overrides: Overrides,
    port: Annotated[int, Parameter(help="Port of MLflow; Prefect takes the next one.")] = 5000,
) -> None:
    """Look at runs in MLflow, and at flows in Prefect, in the browser. Ctrl-C ends it."""
    from flows.cli.ui_servers import serve_ui

    serve_ui(load(config, overrides), port)
