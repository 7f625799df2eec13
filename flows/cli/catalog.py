"""`tld catalog`: known data sets, excluded rows, and verification of a run's files."""

from __future__ import annotations

import contextlib
import csv
import difflib
import sys
from pathlib import Path
from typing import Annotated, TextIO

from cyclopts import App, Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.servers import with_prefect
from flows.terminal.console import console, load, location_of, quote_overrides
from flows.terminal.errors import UserError
from flows.terminal.first_sign import end_first_sign, first_sign

catalog = App(
    name="catalog",
    help="List known data sets, list the excluded rows of a run, and verify its files.",
)


@catalog.command(name="list")
def list_sources() -> None:
    """List the data sets that tld knows."""
    from data_catalog.sources import known_sources
    from flows.cli.tables import sources_table

    console.print(sources_table(known_sources().values()))
    console.print("\ntld catalog show NAME prints where its table comes from and how to run it")


@catalog.command
def show(name: Annotated[str, Parameter(help="Name of a data set in tld catalog list.")]) -> None:
    """Show one data set: its columns, its licence, where to get its table, and the commands to run
    it.

    Example: tld catalog show cc3m
    """
    from data_catalog.sources import known_sources
    from flows.cli.tables import source_page

    sources = known_sources()
    if name not in sources:
        close = difflib.get_close_matches(name, sources, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sources)}"
        raise UserError(f"no data set {name!r} in the catalog; {hint}")
    console.print(source_page(sources[name]))


@catalog.command
@first_sign()
def dropped(
    config: Config,
    *overrides: Overrides,
    reason: Annotated[str, Parameter(help="Only rows whose reason contains this text.")] = "",
    out: Annotated[
        Path | None, Parameter(help="CSV file to write. [default: the terminal]")
    ] = None,
) -> None:
    """List every row of the input that is not among the encodings, with the reason, as CSV.

    Control characters are escaped, and cells that a spreadsheet would evaluate start with an
    apostrophe.

    Example: tld catalog dropped tiny --reason "HTTP 404" --out dropped.csv
    """
    from flows.terminal.escape import csv_cell
    from pipeline.maintenance.excluded_rows import COLUMNS, dropped_rows
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    rows = dropped_rows(settings.download, stage_statuses(RunInputs(settings)))
    with _open(out) if out else contextlib.nullcontext(sys.stdout) as target:
        end_first_sign()
        writer = csv.DictWriter(target, COLUMNS)
        writer.writeheader()
        count = 0
        for row in rows:
            if reason in row["reason"]:
                writer.writerow({name: csv_cell(value) for name, value in row.items()})
                count += 1
    if out:
        console.print(f"{count} rows: {out}")


def _open(out: Path) -> TextIO:
    """A CSV file, or a device or pipe, open for writing. Raises UserError if that fails."""
    try:
        return out.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: cannot write {out}: {error.strerror}") from None


@catalog.command
@first_sign()
def verify(
    config: Config,
    *overrides: Overrides,
    repair: Annotated[bool, Parameter(negative="", help="Recompute damaged shards.")] = False,
) -> None:
    """Compare every file of a run with its digest. The exit code is 1 if files are damaged and not
    repaired."""
    from pipeline.maintenance import verify as outputs
    from pipeline.preflight.check import check_run
    from pipeline.stages.contract import StageFailed
    from pipeline.stages.freshness import statuses_until
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    inputs = RunInputs(settings)
    before = outputs.verify(inputs)
    if not before.outputs and not before.damages:
        raise UserError(
            f"nothing to verify: no stage of {config} is finished in {location_of(settings)}"
        )
    for damage in before.damages:
        console.print(f"damaged: {damage.path} {damage.problem}")
    evict = f", {before.released} evicted on purpose" if before.released else ""
    console.print(
        f"{before.files} files, {before.bytes / 1e6:.1f} MB, of "
        f"{', '.join(before.outputs) or 'no readable stage'}: "
        f"{len(before.damages)} damaged{evict}",
    )
    if not before.damages:
        return
    if not repair:
        raise StageFailed(
            f"{len(before.damages)} damaged; recompute just those with\n"
            f"  tld catalog verify {quote_overrides(config, overrides)} --repair"
        )

    check_run(settings)
    outputs.forget_damaged(before)
    until = before.last_damaged_stage or "download"
    with with_prefect(settings, [status.title for status in statuses_until(inputs, until)]):
        from flows.text_to_image import text_to_image

        text_to_image(settings, until=until)
    after = outputs.verify(inputs)
    for stage in outputs.changed_stages(before, after):
        console.print(
            f"{stage} was recomputed and its content changed: outputs that depend on it are stale"
        )
    if after.damages:
        raise StageFailed(
            f"{len(after.damages)} files are still damaged, first {after.damages[0].path}"
        )
    console.print("repaired: every file matches its digest")
