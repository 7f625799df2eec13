"""`tld status`: the state of each stage of a run, or of every output in its workspace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.reasons import reason_json, reason_lines
from flows.terminal.console import console, load, location_of, print_data
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.maintenance.reasons import StageReason
    from pipeline.stages.freshness import StageStatus
    from pipeline.stages.run_inputs import RunInputs

_Row = dict[str, Any]


def status(
    config: Config,
    *overrides: Overrides,
    every: Annotated[
        bool,
        Parameter(
            "--all", negative="", help="Show every output in the workspace, of all settings."
        ),
    ] = False,
    why: Annotated[
        bool,
        Parameter(
            negative="",
            help="Say for each stage that is not fresh in which settings and inputs it differs "
            "from the nearest existing output: its date, its score, and the time it took.",
        ),
    ] = False,
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """Show for each stage whether its output is fresh, stale, missing, interrupted or damaged, and
    where it is. Of a run with phases it shows the stages of each.

    Example, what a change would run again: tld status tiny train.steps=3000 --why
    """
    from pipeline.stages.freshness import run_statuses
    from pipeline.stages.run_inputs import RunInputs

    if every and why:
        raise UserError("--why explains the stages of this run, --all lists every output; use one")
    settings = load(config, overrides)
    inputs = RunInputs(settings)
    reasons = _reasons(inputs) if why else []
    statuses = [reason.status for reason in reasons] or run_statuses(inputs)
    rows = [_row(status, settings) for status in statuses]
    if every:
        rows = _every(settings.folder, {str(row["folder"]): str(row["state"]) for row in rows})
    if as_json:
        explained = [{"why": reason_json(reason)} for reason in reasons] or [{} for _ in rows]
        both = zip(rows, explained, strict=True)
        print_data(json.dumps([row | reason for row, reason in both], indent=2))
        return
    if not rows:
        console.print(f"{location_of(settings)} is empty; start with tld run")
        return
    table = TextTable(*rows[0])
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
    if why:
        _print_reasons(reasons, location_of(settings))
        return
    for status in statuses:
        if status.problem:
            console.print(status.problem)


def _row(status: StageStatus, settings: RunConfig) -> _Row:
    return {
        **({"phase": status.phase} if settings.phase else {}),
        "stage": status.stage,
        "state": status.state,
        "rows": status.manifest.rows if status.manifest else None,
        "made_by": status.manifest.made_by if status.manifest else None,
        "folder": str(status.folder) if status.folder else None,
    }


def _reasons(inputs: RunInputs) -> list[StageReason]:
    from pipeline.maintenance.reasons import stage_reasons

    return stage_reasons(inputs)


def _print_reasons(reasons: Sequence[StageReason], location: str) -> None:
    console.print(f"\nin {location}")
    if all(reason.is_fresh for reason in reasons):
        console.print("every stage is fresh")
    for reason in reasons:
        if not reason.is_fresh:
            console.print("\n".join(reason_lines(reason, location)))


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
