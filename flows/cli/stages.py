"""`tld run`, and a command for each stage: download, encode, train, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from data_catalog.storage.workspace import StageName
from flows.cli.groups import Config, Force, Overrides
from flows.cli.servers import with_prefect
from flows.orchestration.train_nodes import lead_or_join
from flows.terminal.console import console, load, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.stages.freshness import StageStatus


def run(
    config: Config,
    *overrides: Overrides,
    until: Annotated[StageName, Parameter(help="Stop after this stage.")] = "evaluate",
    force: Annotated[
        tuple[StageName, ...],
        Parameter(negative="", help="Do this stage again even where it is fresh."),
    ] = (),
) -> None:
    """All stages: download, encode, train, evaluate; only what is not fresh."""
    from pipeline.preflight import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import stage_statuses

    settings = load(config, overrides)
    check_run(settings)
    statuses = stage_statuses(settings)
    wanted = list(STAGES)[: list(STAGES).index(until) + 1]
    stale = any(statuses[stage].state != "fresh" for stage in wanted)
    if (
        force
        or stale
        or (until == "evaluate" and not _gate_is_passed(settings, statuses["evaluate"]))
    ):

        def lead() -> None:
            with with_prefect(settings):
                from flows.text_to_image import text_to_image

                text_to_image(settings, frozenset(force), until)

        if not lead_or_join(settings, lead):
            return
        statuses = stage_statuses(settings)
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


def _closing_words(
    config: Path, overrides: Sequence[str], settings: RunConfig, report: StageStatus
) -> None:
    """Where the results lie, the scores, and what to try next."""
    assert report.manifest, "the run ended well"
    scores = report.manifest.figures["scores"]
    shown = (
        "prompt_accuracy",
        "clip_score",
        "clip_score_reference",
        "cmmd",
        "frechet_distance",
        "held_out_loss",
    )
    intervals = report.manifest.figures["intervals"]
    console.print()
    for name in shown:
        if name in scores:
            sure = "{:.3g} to {:.3g}".format(*intervals[name]) if name in intervals else ""
            console.print(f"  {name:21} {scores[name]:<10.4g} {sure}".rstrip())
    built_in = settings.download.urls == "shapes"
    prompt = (
        "a small red star in the top left on a blue background"
        if built_in
        else "a caption like those in your table"
    )
    given = quote_overrides(config, overrides)
    longer = [o for o in overrides if not o.startswith("train.steps=")] + [
        f"train.steps={settings.train.steps * 2}"
    ]
    console.print(
        f"\n  grid    {report.manifest.file('grid.png')}\n  report  "
        f"{report.manifest.file('report.html')}\n\n"
        f'Try next:\n  tld sample {given} "{prompt}"\n  tld ui {given}\n'
        f"  tld serve {given}\n  tld run {quote_overrides(config, longer)}",
    )


def download(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    plan: Annotated[
        bool,
        Parameter(
            negative="", help="Only read the table: rows, hosts, bytes, hours. Fetches nothing."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        Parameter(
            negative="",
            help="Ask again for what failed for a cause that may have passed, and only that.",
        ),
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
    from pipeline.stages.freshness import stage_statuses

    settings = load(config, overrides)
    check_run(settings)
    before = stage_statuses(settings)["download"].manifest
    if not before:
        again = quote_overrides(config, overrides)
        raise UserError(
            f"nothing has failed yet: first finish the download with\n  tld download {again}"
        )
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


def encode(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 2: encode images and captions once, into Parquet + NPZ shards."""
    _run_one("encode", config, overrides, force)


def train(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 3: train the denoiser on the encodings."""
    _run_one("train", config, overrides, force)


def evaluate(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 4: sample held-out captions, score the samples, write the report."""
    _run_one("evaluate", config, overrides, force)


def _run_one(stage: StageName, config: Path, overrides: Sequence[str], force: bool) -> None:
    from pipeline.preflight import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import stage_statuses

    settings = load(config, overrides)
    statuses = stage_statuses(settings)
    lacking = [name for name in STAGES[stage].parents if statuses[name].state != "fresh"]
    if lacking:
        first = statuses[lacking[0]]
        raise UserError(
            f"{stage} needs {STAGES[first.stage].makes} made with these settings, "
            f"which are {first.state}; make them with\n"
            f"  tld run {quote_overrides(config, overrides)} --until {lacking[-1]}"
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
        lead_or_join(settings, lead)
    else:
        lead()
    if stage == "evaluate":
        _closing_words(config, overrides, settings, stage_statuses(settings)["evaluate"])
