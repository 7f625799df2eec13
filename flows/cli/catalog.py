"""`tld catalog`: known data sets, and what became of the rows and files of a run."""

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
from flows.terminal.console import console, load, quote_overrides
from flows.terminal.errors import UserError

catalog = App(
    name="catalog", help="Known data sets; and what became of the rows and files of a run."
)


@catalog.command(name="list")
def list_sources() -> None:
    """Data sets that the project knows."""
    from data_catalog.sources import known_sources
    from flows.cli.tables import sources_table

    console.print(sources_table(known_sources().values()))
    console.print("\ntld catalog show NAME says where its table comes from and how to run it")


@catalog.command
def show(name: Annotated[str, Parameter(help="A data set of `tld catalog list`.")]) -> None:
    """One data set: its columns, licence, where its table comes from, what to type."""
    from data_catalog.sources import known_sources
    from flows.cli.tables import source_page

    sources = known_sources()
    if name not in sources:
        close = difflib.get_close_matches(name, sources, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sources)}"
        raise UserError(f"no data set {name!r} in the catalog; {hint}")
    console.print(source_page(sources[name]))


@catalog.command
def dropped(
    config: Config,
    *overrides: Overrides,
    reason: Annotated[str, Parameter(help="Only rows whose reason holds this text.")] = "",
    out: Annotated[
        Path | None, Parameter(help="A csv file to write instead of the terminal.")
    ] = None,
) -> None:
    """Every row of the URL table that is not among the encodings, with its reason, as csv.

    Control characters are spelled out, and a cell that a spreadsheet would compute begins with an
    apostrophe.
    """
    from flows.terminal.escape import csv_cell
    from pipeline.maintenance.excluded_rows import COLUMNS, dropped_rows
    from pipeline.stages.freshness import stage_statuses

    settings = load(config, overrides)
    rows = dropped_rows(settings.download, stage_statuses(settings))
    with _opened(out) if out else contextlib.nullcontext(sys.stdout) as target:
        writer = csv.DictWriter(target, COLUMNS)
        writer.writeheader()
        count = 0
        for row in rows:
            if reason in row["reason"]:
                writer.writerow({name: csv_cell(value) for name, value in row.items()})
                count += 1
    if out:
        console.print(f"{count} rows: {out}")


def _opened(out: Path) -> TextIO:
    """A csv file, or a device or pipe, to be written. Raises UserError."""
    try:
        return out.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: cannot write {out}: {error.strerror}") from None


@catalog.command
def verify(
    config: Config,
    *overrides: Overrides,
    repair: Annotated[bool, Parameter(negative="", help="Make damaged shards again.")] = False,
) -> None:
    """Read every file of a run again; exit with 1 where one is damaged and stays so."""
    from pipeline.maintenance import verify as outputs
    from pipeline.preflight import check_run
    from pipeline.stages.contract import StageFailed

    settings = load(config, overrides)
    found = outputs.verify(settings)
    if not found.outputs and not found.damages:
        raise UserError(f"nothing to verify: no stage of {config} is finished in {settings.folder}")
    for damage in found.damages:
        console.print(f"damaged: {damage.path} {damage.problem}")
    evict = f", {found.released} let go on purpose" if found.released else ""
    console.print(
        f"{found.files} files, {found.bytes / 1e6:.1f} MB, of "
        f"{', '.join(found.outputs) or 'no readable stage'}: "
        f"{len(found.damages)} damaged{evict}",
    )
    if not found.damages:
        return
    if not repair:
        raise StageFailed(
            f"{len(found.damages)} damaged; make just those again with\n"
            f"  tld catalog verify {quote_overrides(config, overrides)} --repair"
        )

    check_run(settings)
    outputs.forget_damaged(found)
    with with_prefect(settings):
        from flows.text_to_image import text_to_image

        text_to_image(settings, until=found.last_damaged_stage or "download")
    after = outputs.verify(settings)
    for stage in outputs.changed_stages(found, after):
        console.print(
            f"{stage} was made again with other content than before: what depends on it is stale"
        )
    if after.damages:
        raise StageFailed(
            f"{len(after.damages)} files are still damaged, first {after.damages[0].path}"
        )
    console.print("repaired: every file is what its stage made")
