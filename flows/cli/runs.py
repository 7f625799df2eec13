"""`tld runs`: the finished runs of a workspace, and what differs between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.terminal.console import console, load, location_of, print_data
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable

if TYPE_CHECKING:
    from pipeline.maintenance.runs import FinishedRun


def runs(
    *,
    root: Annotated[
        str, Parameter(help="The workspace: a folder, or a place in object storage.")
    ] = "data",
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """List the finished runs in a workspace, newest first: the name of the config, the settings
    that differ between runs of one config, main scores, date, and size on disk; and the names that
    tld run --name gave.

    Each report is one line, and so is each output from which nothing further was made, such as a
    model without a report. Sizes include outputs that several runs share. Interrupted outputs are
    in tld status CONFIG --all.

    Example: tld runs --root data
    """
    from pipeline.config.config_file import shipped_configs
    from pipeline.maintenance.runs import finished_runs, names_of_outputs
    from pipeline.stages.remote_workspace import sync_listing

    # Any config says where this machine keeps copies of what is in object storage.
    settings = load(shipped_configs()["tiny"], [f"root={json.dumps(root)}"])
    sync_listing(settings)
    if not settings.folder.is_dir():
        raise UserError(f"there is no workspace at {location_of(settings)}; --root names another")
    listed, names = finished_runs(settings.folder), names_of_outputs(settings)
    labels = [names.get(run.last.folder.resolve(), ()) for run in listed]
    if as_json:
        entries = [_as_json(run, label) for run, label in zip(listed, labels, strict=True)]
        print_data(json.dumps(entries, indent=2))
        return
    if not listed:
        console.print(f"no finished run in {location_of(settings)}; start with tld run")
        return
    console.print(f"{location_of(settings)}\n")
    console.print(_table(listed, labels))


def _table(listed: Sequence[FinishedRun], labels: Sequence[Sequence[str]]) -> TextTable:
    """With a column for names that were given, if there are some."""
    from pipeline.maintenance.inventory import place, scores_of

    first = ["name"] if any(labels) else []
    table = TextTable(*first, "run", "differs in", "scores", "made (UTC)", "output")
    table.add_column("MB", justify="right")
    for run, label in zip(listed, labels, strict=True):
        scores = (f"{name} {value:.4g}" for name, value in scores_of(run.last).items())
        table.add_row(
            *(", ".join(label) for _ in first),
            run.last.name or "unknown",
            " ".join(f"{name}={value}" for name, value in run.differs.items()),
            ", ".join(scores),
            run.last.made_at[:16].replace("T", " "),
            place(run.last.folder),
            f"{run.bytes / 1e6:,.1f}",
        )
    return table


def _as_json(run: FinishedRun, names: Sequence[str]) -> dict[str, object]:
    from pipeline.maintenance.inventory import scores_of

    return {
        "name": run.last.name,
        "names": list(names),
        "differs": run.differs,
        "scores": scores_of(run.last),
        "made_at": run.last.made_at,
        "bytes": run.bytes,
        "outputs": [str(output.folder) for output in run.outputs],
    }
