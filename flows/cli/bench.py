"""`tld bench`: how fast this machine is at each part of a run."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, say
from flows.terminal.errors import UserError
from pipeline.bench.parts import LEAST_PAIRS, PARTS, Part


def bench(
    config: Config,
    *overrides: Overrides,
    only: Annotated[
        tuple[Part, ...], Parameter(negative="", help="Measure this part; several are allowed.")
    ] = (),
    pairs: Annotated[
        int, Parameter(help="How many made-up pairs the loader is measured on.")
    ] = 20_000,
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """How fast this machine encodes, loads, trains and samples this run's models, and how long the
    run would take."""
    from flows.cli.tables import bench_page
    from pipeline.bench.bench import bench as measure
    from pipeline.preflight import check_run

    settings = load(config, overrides)
    if pairs < LEAST_PAIRS:
        raise UserError(f"--pairs must be at least {LEAST_PAIRS}, got {pairs}")
    if not only or {"encode", "decode"} & set(
        only
    ):  # the others need neither a URL table nor encoders
        check_run(settings)
    told = measure(settings, only or PARTS, pairs, say)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table, lines = bench_page(told)
    console.print(table)
    console.print(lines)
