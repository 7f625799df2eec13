"""`tld watch`: what the runs of a workspace do now, from another terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.storage.object_store import is_url
from data_catalog.storage.run_records import StoredRecord, held_folders, read_records
from flows.cli.groups import Config, Overrides
from flows.cli.run_view import at_work_text, ended_text
from flows.terminal.console import Terminal, console, load, location_of, quote_overrides, say

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.run import RunConfig

_EVERY_S = 1.0


def watch(
    config: Config,
    *overrides: Overrides,
    once: Annotated[
        bool, Parameter(negative="", help="Print what is known now, and end, in a terminal too.")
    ] = False,
) -> None:
    """Show what the runs in the workspace of this run do now: the stages done and to do, progress,
    speed and time left, the curves of a training, and its newest samples. If nothing runs, show how
    the last run ended.

    In a terminal it goes on until the runs end, or until Ctrl-C, which ends only the watching. It
    reads files, and disturbs no run.

    Example: tld watch tiny
    """
    settings = load(config, overrides)
    stored = read_records(settings.folder)
    at_work = [one for one in stored if one.is_at_work]
    if not at_work:
        console.print(_nothing_runs(settings, stored))
        return
    if once or not console.is_terminal:
        console.print(_at_work_text(at_work, settings))
        return
    try:
        _follow(settings, {one.log for one in at_work})
    except KeyboardInterrupt:
        say(
            "\nthe watching has ended, the run goes on; to stop it:\n"
            f"  tld stop {quote_overrides(config, overrides)}"
        )


def nothing_runs(settings: RunConfig) -> str:
    """That nothing runs in the workspace, or what does there without a record."""
    if folders := [*held_folders(settings.folder)]:
        lines = "; ".join(f"{folder} is being made by {process}" for folder, process in folders)
        return (
            f"no command of this machine runs in {location_of(settings)}, but {lines}, which wrote "
            "no record (Python, Prefect or another machine)"
        )
    text = f"nothing runs in {location_of(settings)}"
    return f"{text}, as far as this machine knows" if is_url(settings.root) else text


def _nothing_runs(settings: RunConfig, stored: list[StoredRecord]) -> str:
    if not stored and any(held_folders(settings.folder)):
        return nothing_runs(settings)
    if not stored:
        return f"{nothing_runs(settings)}, and no run is recorded there; start with tld run"
    return f"{nothing_runs(settings)}; the last run:\n\n{ended_text(stored[-1])}"


def _at_work_text(at_work: list[StoredRecord], settings: RunConfig) -> str:
    return "\n\n".join(at_work_text(one, settings.folder) for one in at_work)


def _follow(settings: RunConfig, watched: set[Path]) -> None:
    """Show the runs at work in place until none is left, and then how those that were watched have
    ended."""
    from rich.live import Live
    from rich.text import Text

    with Live(console=Terminal(), auto_refresh=False) as live:
        while at_work := [one for one in read_records(settings.folder) if one.is_at_work]:
            watched |= {one.log for one in at_work}
            text = _at_work_text(at_work, settings)
            live.update(Text(text, overflow="fold"), refresh=True)
            time.sleep(_EVERY_S)
    for one in read_records(settings.folder):
        if one.log in watched:
            console.print(ended_text(one))
