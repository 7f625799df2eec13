"""`tld status`: the state of each stage of a run, or of every output in its workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, print_data

_Row = dict[str, str | int | None]


def status(
    config: Config,
    *overrides: Overrides,
    every: Annotated[
        bool,
        Parameter(
            "--all", negative="", help="Show every output in the workspace, of all settings."
        ),
    ] = False,
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """Show for each stage whether its output is fresh, stale, missing, interrupted or damaged, and
    where it is. Of a run with phases it shows the stages of each.

    Example, for scripts: tld status tiny --json
    """
    from pipeline.stages.freshness import run_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    statuses = run_statuses(RunInputs(settings))
    rows: list[_Row] = [
        {
            **({"phase": status.phase} if settings.phase else {}),
            "stage": status.stage,
            "state": status.state,
            "rows": status.manifest.rows if status.manifest else None,
            "made_by": status.manifest.made_by if status.manifest else None,
            "folder": str(status.folder) if status.folder else None,
        }
        for status in statuses
    ]
    if every:
        rows = _every(settings.folder, {str(row["folder"]): str(row["state"]) for row in rows})
    if as_json:
        print_data(json.dumps(rows, indent=2))
        return
    if not rows:
        console.print(f"{settings.folder} is empty; start with tld run")
        return
    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
    for status in statuses:
        if status.problem:
            console.print(status.problem)


def _every(root: Path, of_this_run: dict[str, str]) -> list[_Row]:
    """All outputs in a workspace; those of this run have a state in `this_run`."""
    from pipeline.maintenance.inventory import parents_of, stored

    outputs = stored(root)
    return [
        {
            "stage": output.stage,
            "output": output.folder.name,
            "state": output.state,
            "this_run": of_this_run.get(str(output.folder)),
            "rows": output.manifest.rows if output.manifest else None,
            "MB": f"{output.bytes / 1e6:.1f}",
            "made_at": output.manifest.made_at[:16] if output.manifest else None,
            "made_by": output.manifest.made_by[:12] if output.manifest else None,
            "made_from": " ".join(
                parent.folder.name if parent else f"({stage}: gone)"
                for stage, parent in parents_of(output, outputs).items()
            ),
        }
        for output in outputs
    ]
