"""`tld ui`: the web pages of MLflow and Prefect for one workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Overrides
from flows.terminal.console import load
from flows.tracking.pages import UI_PORT


def ui(
    config: Annotated[
        Path,
        Parameter(
            help="The run whose workspace (root) is shown: a YAML file, or the name of a shipped "
            "one: emoji, modern-250m, original-100m, short-prompts, tiny, tld-100m."
        ),
    ] = Path("tiny"),
    *overrides: Overrides,
    port: Annotated[int, Parameter(help="Port of MLflow; Prefect uses the next one.")] = UI_PORT,
) -> None:
    """Show runs in MLflow and flows in Prefect, in the browser. Stop it with Ctrl-C.

    It prints the address of all runs of this name, of the newest run with these settings, and of
    Prefect.
    """
    from flows.cli.ui_servers import serve_ui

    serve_ui(load(config, overrides), port)
