"""The command line. Commands import what is slow (Prefect, MLflow, torch) inside."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from rich.table import Table

from data_catalog.storage.workspace import StageName
from flows.cli.catalog import catalog
from flows.cli.clean import clean
from flows.cli.compare import compare
from flows.cli.convert_checkpoint import export_checkpoint, import_checkpoint
from flows.cli.deploy import deploy
from flows.cli.edit import edit
from flows.cli.export import export
from flows.cli.interpolate import interpolate
from flows.cli.panorama import panorama
from flows.cli.promote import promote
from flows.cli.sample import sample
from flows.cli.serve import serve
from flows.cli.status import status
from flows.cli.sweep import sweep
from flows.orchestration.train_nodes import on_all_nodes
from flows.terminal.console import (
    Config,
    Terminal,
    UserMistake,
    console,
    errors,
    load,
    say,
    typed,
    with_home,
    with_prefect,
)
from flows.terminal.errors import prefect_is_lost
from flows.terminal.streams import abandon_output, fit_streams, output_is_closed
from pipeline.compute.resource_limits import raise_descriptor_limit

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.stages.freshness import StageStatus

Part = Literal["encode", "load", "train", "denoise", "decode"]
Overrides = Annotated[
    tuple[str, ...], Parameter(help="Settings to change, as section.key=value: train.lr=3e-4 evaluate.prompts=64.")
]
Force = Annotated[bool, Parameter(negative="", help="Do it again even where the output is fresh.")]

app = App(
    name="tld",
    help="From a list of image URLs to a text-to-image model.\n\n"
    "Start with: tld run conf/tiny.yaml. It draws, downloads and encodes a small data set, trains on it and "
    "shows samples. Each stage can be rerun alone; what is fresh is not computed again. "
    "A run that was stopped goes on with the same command.",
    version_flags=[],
    console=Terminal(),
    error_console=errors,
    suppress_keyboard_interrupt=False,
)
_MAKE, _DRAW, _JUDGE, _SHARE, _KEEP = map(Group.create_ordered, ("Make", "Draw", "Judge", "Share", "Look after"))
for _group, _commands in {
    _DRAW: (sample, interpolate, edit, panorama, serve),
    _JUDGE: (compare, sweep),
    _SHARE: (promote, export, import_checkpoint, export_checkpoint),
    _KEEP: (status, clean, deploy),
}.items():
    for _command in _commands:
        app.command(_command, group=_group)
catalog.group = (_KEEP,)
app.command(catalog)


@app.command(group=_MAKE)
def run(
    config: Config,
    *overrides: Annotated[str, Parameter(help="Settings to change, as section.key=value.")],
    until: Annotated[StageName, Parameter(help="Stop after this stage.")] = "evaluate",
    force: Annotated[
        tuple[StageName, ...], Parameter(negative="", help="Do this stage again even where it is fresh.")
    ] = (),
) -> None:
    """All stages: download, encode, train, evaluate; only what is not fresh."""
    from pipeline.preflight import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import survey

    settings = load(config, overrides)
    check_run(settings)
    statuses = survey(settings)
    wanted = list(STAGES)[: list(STAGES).index(until) + 1]
    stale = any(statuses[stage].state != "fresh" for stage in wanted)
    if force or stale or (until == "evaluate" and not _gate_is_passed(settings, statuses["evaluate"])):

        def lead() -> None:
            with with_prefect(settings):
                from flows.text_to_image import text_to_image

                text_to_image(settings, frozenset(force), until)

        if not on_all_nodes(settings, lead):
            return
        statuses = survey(settings)
    else:
        for stage in wanted:
            console.print(f"{stage:9} fresh: {statuses[stage].folder}")
    if until == "evaluate":
        _closing_words(config, overrides, settings, statuses["evaluate"])


def _gate_is_passed(settings: RunConfig, report: StageStatus) -> bool:
    """Whether a fresh report has also been to MLflow's registry: a kill may have come between."""
    if not settings.evaluate.require or not report.manifest:
        return True
    from flows.tracking.tracker import gate_is_passed

    return gate_is_passed(settings, report.manifest)


def _closing_words(config: Path, overrides: Sequence[str], settings: RunConfig, report: StageStatus) -> None:
    """Where the results lie, the scores, and what to try next."""
    assert report.manifest, "the run ended well"
    scores = report.manifest.figures["scores"]
    shown = ("prompt_accuracy", "clip_score", "clip_score_reference", "cmmd", "frechet_distance", "held_out_loss")
    intervals = report.manifest.figures["intervals"]
    console.print()
    for name in shown:
        if name in scores:
            sure = "{:.3g} to {:.3g}".format(*intervals[name]) if name in intervals else ""
            console.print(f"  {name:21} {scores[name]:<10.4g} {sure}".rstrip())
    built_in = settings.download.urls == "shapes"
    prompt = (
        "a small red star in the top left on a blue background" if built_in else "a caption like those in your table"
    )
    given = typed(config, overrides)
    longer = [o for o in overrides if not o.startswith("train.steps=")] + [f"train.steps={settings.train.steps * 2}"]
    console.print(
        f"\n  grid    {report.manifest.file('grid.png')}\n  report  {report.manifest.file('report.html')}\n\n"
        f'Try next:\n  tld sample {given} "{prompt}"\n  tld ui {given}\n'
        f"  tld serve {given}\n  tld run {typed(config, longer)}",
    )


@app.command(group=_MAKE)
def download(
    config: Config,
    *overrides: str,
    force: Force = False,
    plan: Annotated[
        bool, Parameter(negative="", help="Only read the table: rows, hosts, bytes, hours. Fetches nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, Parameter(negative="", help="Ask again for what failed for a cause that may have passed, and only that.")
    ] = False,
) -> None:
    """Stage 1: fetch the images of the URL table, resized, into tar shards."""
    if plan:
        _show_plan(load(config, overrides))
    elif retry_failed:
        _retry_failed(config, overrides)
    else:
        _run_one("download", config, overrides, force)


def _retry_failed(config: Path, overrides: Sequence[str]) -> None:
    """Ask again for transient failures, and show what that changed."""
    from pipeline.preflight import check_run
    from pipeline.stages.freshness import survey

    settings = load(config, overrides)
    check_run(settings)
    before = survey(settings)["download"].manifest
    if not before:
        again = typed(config, overrides)
        raise UserMistake(f"nothing has failed yet: first finish the download with\n  tld download {again}")
    if not before.figures["may_pass"]:
        console.print("nothing to ask again: no failure is of a kind that may pass")
        return
    with with_prefect(settings):
        from flows.text_to_image import one_stage

        after = one_stage(settings, "download", retry_failed=True)
    table = Table("", "before", "after", box=None, header_style="bold", pad_edge=False)
    told = [manifest.figures["account"] for manifest in (before, after)]
    table.add_row("downloaded", *(str(account["downloaded"]) for account in told))
    for cause in dict.fromkeys([*told[0]["failed"], *told[1]["failed"]]):
        table.add_row(cause, *(str(account["failed"].get(cause, 0)) for account in told))
    console.print(table)


def _show_plan(settings: RunConfig) -> None:
    from flows.cli.tables import TableProgress, plan_page
    from pipeline.download.plan import plan_download
    from pipeline.preflight import check_run

    check_run(settings)
    console.print(plan_page(settings, plan_download(settings, TableProgress())))


@app.command(group=_MAKE)
def encode(config: Config, *overrides: str, force: Force = False) -> None:
    """Stage 2: encode images and captions once, into Parquet + NPZ shards."""
    _run_one("encode", config, overrides, force)


@app.command(group=_MAKE)
def train(config: Config, *overrides: str, force: Force = False) -> None:
    """Stage 3: train the denoiser on the encodings."""
    _run_one("train", config, overrides, force)


@app.command(group=_MAKE)
def evaluate(config: Config, *overrides: str, force: Force = False) -> None:
    """Stage 4: sample held-out captions, score the samples, write the report."""
    _run_one("evaluate", config, overrides, force)


def _run_one(stage: StageName, config: Path, overrides: Sequence[str], force: bool) -> None:
    from pipeline.preflight import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import survey

    settings = load(config, overrides)
    statuses = survey(settings)
    lacking = [name for name in STAGES[stage].parents if statuses[name].state != "fresh"]
    if lacking:
        first = statuses[lacking[0]]
        raise UserMistake(
            f"{stage} needs {STAGES[first.stage].makes} made with these settings, "
            f"which are {first.state}; make them with\n"
            f"  tld run {typed(config, overrides)} --until {lacking[-1]}"
        )
    check_run(settings)
    gate = stage != "evaluate" or _gate_is_passed(settings, statuses[stage])
    if statuses[stage].state == "fresh" and not force and gate:
        console.print(f"{stage:9} fresh: {statuses[stage].folder}")
        return

    def lead() -> None:
        with with_prefect(settings):
            from flows.text_to_image import one_stage

            one_stage(settings, stage, force)

    if stage == "train":
        on_all_nodes(settings, lead)
    else:
        lead()
    if stage == "evaluate":
        _closing_words(config, overrides, settings, survey(settings)["evaluate"])


@app.command(name="config", group=_KEEP)
def show_config(config: Config, *overrides: str) -> None:
    """Print the resolved run, every setting with its value, and stop."""
    import yaml

    print(yaml.safe_dump(load(config, overrides).model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")


@app.command(group=_JUDGE)
def bench(
    config: Config,
    *overrides: str,
    only: Annotated[tuple[Part, ...], Parameter(negative="", help="Measure this part; several are allowed.")] = (),
    pairs: Annotated[int, Parameter(help="How many made-up pairs the loader is measured on.")] = 20_000,
    as_json: Annotated[bool, Parameter("--json", negative="", help="Print JSON, for programs.")] = False,
) -> None:
    """How fast this machine encodes, loads, trains and samples this run's models, and how long the run would take."""
    from flows.cli.tables import bench_page
    from pipeline.bench.bench import LEAST_PAIRS, PARTS
    from pipeline.bench.bench import bench as measure
    from pipeline.preflight import check_run

    settings = load(config, overrides)
    if pairs < LEAST_PAIRS:
        raise UserMistake(f"--pairs must be at least {LEAST_PAIRS}, got {pairs}")
    if not only or {"encode", "decode"} & set(only):  # the others need neither a URL table nor encoders
        check_run(settings)
    told = measure(settings, only or PARTS, pairs, say)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table, lines = bench_page(told)
    console.print(table)
    console.print(lines)


@app.command(group=_KEEP)
def ui(
    config: Annotated[Path, Parameter(help="The run whose workspace to look at.")] = Path("conf/tiny.yaml"),
    *overrides: str,
    port: Annotated[int, Parameter(help="Port of MLflow; Prefect takes the next one.")] = 5000,
) -> None:
    """Look at runs in MLflow, and at flows in Prefect, in the browser. Ctrl-C ends it."""
    from flows.cli.ui import serve_ui

    serve_ui(load(config, overrides), port)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command of the command line, or of these words.

    Exits with 0 when done, 2 for the user's mistake, 1 where a stage failed, 128 + signal when stopped by Ctrl-C or
    SIGTERM, or when whoever read the output has left.
    """
    signal.signal(signal.SIGTERM, _stop)
    raise_descriptor_limit()
    fit_streams()
    logging.raiseExceptions = False  # a log that no server takes is no news to a user
    try:
        app(with_home(sys.argv[1:] if words is None else words), exit_on_error=False, print_error=True)
        if sys.stdout:
            sys.stdout.flush()
    except CycloptsError:
        code = 2
    except KeyboardInterrupt as stopped:
        say("\ntld: stopped; the same command goes on from here")
        # What is kept is on disk and our processes have ended: wait for no library's threads.
        os._exit(128 + (signal.SIGTERM if isinstance(stopped, _Terminated) else signal.SIGINT))
    except Exception as error:
        # A reader that left early, as `head` does, is no error to explain.
        code = 128 + signal.SIGPIPE if output_is_closed(error) else _explain(error)
        abandon_output()
        if code == 1 and os.environ.get("PREFECT_API_URL") and prefect_is_lost(error):
            os._exit(code)  # Prefect's client would wait for its server, for minutes
    else:
        code = 0
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _stop(_signal: int, _frame: object) -> None:
    raise _Terminated


def _explain(error: Exception) -> int:
    """Print what a person needs of an error; the exit code.

    An error class that is meant for users has an `exit_code`: 2 for a mistake of theirs, 1 for a stage that failed.
    """
    from data_catalog.redaction import without_secrets
    from flows.terminal.errors import cause_outside, unusable_path

    def print_error(what: object) -> None:
        say(without_secrets(f"tld: {what}"))

    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        print_error(error)
        return code
    if os.environ.get("TLD_TRACEBACK"):
        raise error
    if cause := cause_outside(error):
        print_error(cause)
        return 1
    if mistake := unusable_path(error):
        print_error(mistake)
        return 2
    print_error(f"unexpected {type(error).__name__}: {error}\n(set TLD_TRACEBACK=1 to see where)")
    return 1


if __name__ == "__main__":
    main()
