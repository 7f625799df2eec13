"""`tld bench`: the speed of this machine at each part of a run."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, print_data, say
from flows.terminal.errors import UserError
from pipeline.bench.parts import LEAST_PAIRS, PARTS, Part


def bench(
    config: Config,
    *overrides: Overrides,
    only: Annotated[
        tuple[Part, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Measure only this part; repeat the option for several.",
        ),
    ] = (),
    pairs: Annotated[
        int, Parameter(help="Number of synthetic pairs to measure the data loader on.")
    ] = 20_000,
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """Measure how fast this machine encodes, loads, trains and samples with this run's models, and
    estimate how long the run would take.

    Example: tld bench tld-100m --only train --only load
    """
    from flows.cli.tables import bench_page
    from pipeline.bench.bench import bench as measure
    from pipeline.preflight.check import check_run

    settings = load(config, overrides)
    if pairs < LEAST_PAIRS:
        raise UserError(f"--pairs must be at least {LEAST_PAIRS}, got {pairs}")
    # The other parts need neither a URL table nor encoders.
    if not only or {"encode", "decode"} & set(only):
        check_run(settings)
    results = measure(settings, only or PARTS, pairs, say)
    if as_json:
        print_data(json.dumps(results, indent=2))
        return
    table, lines = bench_page(results)
    console.print(table)
    console.print(lines)
