"""`tld run`, and one command per stage: download, encode, train, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from data_catalog.storage.workspace import StageName
from flows.cli.groups import Config, Force, Overrides
from flows.cli.servers import with_prefect
from flows.terminal.console import console, load, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.stages.freshness import StageStatus


def run(
    config: Config,
    *overrides: Overrides,
    until: Annotated[StageName, Parameter(help="Stop after this stage.")] = "evaluate",
    force: Annotated[
        tuple[StageName, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Run this stage again even if its output is fresh; repeat the option for "
            "several stages.",
        ),
    ] = (),
) -> None:
    """Run all stages: download, encode, train, evaluate. Stages whose output is fresh are skipped.

    Example, a short training with another seed: tld run tiny train.steps=500
    train.seed=1
    """
    from flows.orchestration.train_nodes import lead_or_join
    from pipeline.preflight.check import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    check_run(settings)
    statuses = stage_statuses(RunInputs(settings))
    stages = list(STAGES)[: list(STAGES).index(until) + 1]
    stale = any(statuses[stage].state != "fresh" for stage in stages)
    if (
        force
        or stale
        or (until == "evaluate" and not _gate_is_passed(settings, statuses["evaluate"]))
    ):

        def lead() -> Manifest:
            with with_prefect(settings):
                from flows.text_to_image import text_to_image

                return text_to_image(settings, frozenset(force), until)

        last = lead_or_join(settings, lead)
    else:
        for stage in stages:
            _print_up_to_date(statuses[stage])
        last = statuses[until].manifest
    if last and until == "evaluate":
        _print_results(config, overrides, settings, last)


def _print_up_to_date(status: StageStatus) -> None:
    console.print(f"{status.stage:9} fresh: {status.folder}")


def _gate_is_passed(settings: RunConfig, report: StageStatus) -> bool:
    """Whether a fresh report has also been compared in MLflow's registry. It may not have been, if
    the process was killed in between."""
    if not settings.evaluate.require or not report.manifest:
        return True
    from flows.tracking.tracker import gate_is_passed

    return gate_is_passed(settings, report.manifest)


def _print_results(
    config: Path, overrides: Sequence[str], settings: RunConfig, report: Manifest
) -> None:
    """Print the scores, the paths of the results, and what to try next."""
    from data_catalog.figures import ReportFigures
    from data_catalog.scores import no_interval, whole_scores

    figures = ReportFigures.of(report)
    console.print()
    printed = [score.name for score in whole_scores(figures.scores) if score.is_printed]
    width = max((len(name) for name in printed), default=0) + 1
    for name in printed:
        value, ends = figures.scores[name], figures.intervals.get(name)
        interval = "{:.3g} to {:.3g}".format(*ends) if ends else no_interval(name, report.rows)
        console.print(f"  {name:{width}} {value:<10.4g} {interval}")
    prompt = (
        "a small red star in the top left on a blue background"
        if settings.download.urls == "shapes"
        else "a caption like those in your table"
    )
    this_run = quote_overrides(config, overrides)
    longer = [o for o in overrides if not o.startswith("train.steps=")]
    longer.append(f"train.steps={settings.train.steps * 2}")
    console.print(
        f"\n  grid    {report.file('grid.png')}\n  report  {report.file('report.html')}\n\n"
        f'Try next:\n  tld sample {this_run} "{prompt}"\n  tld ui {this_run}\n'
        f"  tld serve {this_run}\n  tld run {quote_overrides(config, longer)}"
        f"   # {_where_a_longer_training_begins(settings)}",
    )


def _where_a_longer_training_begins(settings: RunConfig) -> str:
    if settings.train.lr_schedule == "constant":
        return f"longer, from the checkpoint of step {settings.train.trunk_steps}"
    return "longer, from step 0: the cosine of the learning rate depends on train.steps"


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
) -> None:
    """Stage 1: download the images of a URL table, or read those that exist already; resize them,
    and write tar shards.

    Example: tld download tiny --plan
    """
    if plan:
        _print_plan(load(config, overrides))
    elif retry_failed:
        _retry_failed(config, overrides)
    else:
        _run_one("download", config, overrides, force=force)


def _retry_failed(config: Path, overrides: Sequence[str]) -> None:
    """Retry transient failures, and print the counts before and after."""
    from data_catalog.figures import ImagesFigures
    from pipeline.preflight.check import check_run
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    check_run(settings)
    before = stage_statuses(RunInputs(settings))["download"].manifest
    if not before:
        command = quote_overrides(config, overrides)
        raise UserError(
            f"nothing to retry yet: first finish the download with\n  tld download {command}"
        )
    if not ImagesFigures.of(before).may_pass:
        console.print("nothing to retry: no download failed for a transient reason")
        return
    with with_prefect(settings):
        from flows.text_to_image import one_stage

        after = one_stage(settings, "download", retry_failed=True)
    table = Table("", "before", "after", box=None, header_style="bold", pad_edge=False)
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


def encode(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 2: encode images (VAE) and captions (text encoder) once, into Parquet and NPZ
    shards."""
    _run_one("encode", config, overrides, force=force)


def train(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 3: train the denoiser on the encodings.

    A stopped training resumes from its last checkpoint.

    Example: tld train tiny train.steps=500
    """
    _run_one("train", config, overrides, force=force)


def evaluate(config: Config, *overrides: Overrides, force: Force = False) -> None:
    """Stage 4: sample the captions of held-out pairs, score the samples, and write the report."""
    _run_one("evaluate", config, overrides, force=force)


def _run_one(stage: StageName, config: Path, overrides: Sequence[str], *, force: bool) -> None:
    from flows.orchestration.train_nodes import lead_or_join
    from pipeline.preflight.check import check_run
    from pipeline.stages.dag import STAGES
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    statuses = stage_statuses(RunInputs(settings))
    missing = [name for name in STAGES[stage].parents if statuses[name].state != "fresh"]
    if missing:
        first = statuses[missing[0]]
        raise UserError(
            f"cannot {stage}: the output of {first.stage} for these settings is {first.state}. "
            "First run\n"
            f"  tld run {quote_overrides(config, overrides)} --until {missing[-1]}"
        )
    check_run(settings)
    gate = stage != "evaluate" or _gate_is_passed(settings, statuses[stage])
    if statuses[stage].state == "fresh" and not force and gate:
        _print_up_to_date(statuses[stage])
        return

    def lead() -> Manifest:
        with with_prefect(settings):
            from flows.text_to_image import one_stage

            return one_stage(settings, stage, force=force)

    output = lead_or_join(settings, lead) if stage == "train" else lead()
    if output and stage == "evaluate":
        _print_results(config, overrides, settings, output)
