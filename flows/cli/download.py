"""`tld download`: stage 1, its plan, and another try of what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import DEFAULT_VERBOSITY, Config, Force, Output, Overrides
from flows.cli.servers import with_prefect
from flows.cli.stages import run_one
from flows.terminal.console import console, load, location_of, quote_overrides
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig


def download(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    plan: Annotated[
        bool,
        Parameter(
            negative="",
            help="Fetch nothing; read the table and print its rows and hosts, and the estimated "
            "bytes and time.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        Parameter(
            negative="",
            help="Retry only the downloads that failed for a transient reason, such as a timeout.",
        ),
    ] = False,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Stage 1: download the images of a URL table, or read those that exist already; resize them,
    and write tar shards.

    Example: tld download tiny --plan
    """
    output.choose()
    if plan:
        _print_plan(load(config, overrides))
    elif retry_failed:
        _retry_failed(config, overrides)
    else:
        run_one("download", config, overrides, force=force)


def _retry_failed(config: Path, overrides: Sequence[str]) -> None:
    """Retry transient failures, and print the counts before and after."""
    from data_catalog.figures import ImagesFigures
    from pipeline.preflight.check import check_run
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    check_run(settings)
    status = stage_statuses(RunInputs(settings))["download"]
    if not (before := status.manifest):
        command = quote_overrides(config, overrides)
        raise UserError(
            f"nothing to retry yet in {location_of(settings)}: first finish the download with\n"
            f"  tld download {command}"
        )
    if not ImagesFigures.of(before).may_pass:
        console.print("nothing to retry: no download failed for a transient reason")
        return
    with with_prefect(settings, [status.title]):
        from flows.text_to_image import one_stage

        after = one_stage(settings, "download", retry_failed=True)
    table = TextTable("", "before", "after")
    counts = [ImagesFigures.of(manifest).account for manifest in (before, after)]
    table.add_row("downloaded", *(str(count.downloaded) for count in counts))
    for cause in dict.fromkeys([*counts[0].failed, *counts[1].failed]):
        table.add_row(cause, *(str(count.failed.get(cause, 0)) for count in counts))
    console.print(table)


def _print_plan(settings: RunConfig) -> None:
    from flows.cli.tables import TableProgress, plan_page
    from pipeline.download.plan import plan_download
    from pipeline.preflight.check import check_run

    check_run(settings)
    console.print(plan_page(settings, plan_download(settings, TableProgress())))
