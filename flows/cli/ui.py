"""`tld ui`: the web pages of MLflow and Prefect for one workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Overrides
from flows.terminal.console import load


def ui(
    config: Annotated[
        Path,
        Parameter(
            help="The run whose workspace (root) is shown: a YAML file, or the name of a shipped "
            "one: emoji, modern-250m, original-100m, short-prompts, tiny, tld-100m."
        ),
    ] = Path("tiny"),
    *overrides: Overrides,
    port: Annotated[int, Parameter(help="Port of MLflow; Prefect uses the next one.")] = 5000,
) -> None:
    """Show runs in MLflow and flows in Prefect, in the browser. Stop it with Ctrl-C."""
    from flows.cli.ui_servers import serve_ui

    serve_ui(load(config, overrides), port)
