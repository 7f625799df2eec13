"""`tld run`, and commands of single stages: encode, train, distill, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.storage.workspace import StageName
from flows.cli.groups import DEFAULT_VERBOSITY, Config, Force, Output, Overrides
from flows.cli.reasons import announce, plan_lines
from flows.cli.run_naming import RunName, check_name_of_run, name_run
from flows.cli.servers import check_servers, with_prefect
from flows.terminal.console import console, load, location_of, quote_overrides
from flows.terminal.errors import UserError
from flows.terminal.verbosity import is_quiet

_NO_DISTILLATION = (
    "this run has no section distill; set distill.sample_steps=4, for example, or distill={}"
)

_ForceStages = Annotated[
    tuple[StageName, ...],
    Parameter(
        negative="",
        show_default=False,
        help="Run this stage again even if its output is fresh; repeat the option for "
        "several stages.",
    ),
]
_DryRun = Annotated[
    bool,
    Parameter(
        negative="",
        help="Run nothing; say which stages would run and why, about how long that takes, and how "
        "much disk.",
    ),
]

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.maintenance.reasons import StageReason
    from pipeline.stages.freshness import StageStatus


def run(
    config: Config,
    *overrides: Overrides,
    until: Annotated[
        StageName | None,
        Parameter(help="Stop after this stage. [default: after the last]", show_default=False),
    ] = None,
    force: _ForceStages = (),
    dry_run: _DryRun = False,
    name: RunName = None,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Run all stages: download, encode, train, evaluate, and distill if the run has this section,
    with an evaluation of the distilled model. Of a run with phases, download, encode and train of
    each phase, and the others of the last. Stages whose output is fresh are skipped.

    Example, a short training, which tld sample short then samples: tld run tiny train.steps=500
    --name short
    """
    from flows.cli.results import print_results
    from flows.terminal.progress import Progress
    from pipeline.preflight.check import check_run
    from pipeline.run.train_nodes import lead_or_join

    output.choose()
    settings = load(config, overrides)
    for option, stages in (("--until", [until] if until else []), ("--force", force)):
        if "distill" in stages and settings.distill is None:
            raise UserError(f"{option} distill: {_NO_DISTILLATION}")
    check_name_of_run(name, settings)
    check_run(settings)
    reasons = _reasons(settings, until, force)
    if dry_run:
        console.print("\n".join(plan_lines(reasons, settings, force)))
        return
    statuses = [reason.status for reason in reasons]
    is_due = bool(force) or not _is_up_to_date(settings, statuses)
    if is_due and name is not None and settings.train.launch.nodes == 1:  # others may only join
        check_servers(settings)  # before the name is taken
    config, typed = name_run(name, config, overrides, settings)
    if is_due:

        def lead() -> Manifest:
            announce(reasons, settings, force)
            with with_prefect(settings, [status.title for status in statuses]):
                from flows.text_to_image import text_to_image

                return text_to_image(settings, frozenset(force), until)

        if lead_or_join(settings, lead, Progress("train").finish) is None:
            return
    else:
        for status in statuses:
            _print_up_to_date(status)
    if until in (None, "evaluate"):
        print_results(config, typed, settings)


def _reasons(
    settings: RunConfig, until: StageName | None, force: Sequence[StageName]
) -> list[StageReason]:
    """The stages up to `until` of every phase; without it also the evaluation of the distilled
    model."""
    from pipeline.maintenance.reasons import stage_reasons
    from pipeline.stages.run_inputs import RunInputs

    inputs = RunInputs(settings)
    names = inputs.stages_until(until)
    return [one for one in stage_reasons(inputs, force) if not until or one.status.stage in names]


def _is_up_to_date(settings: RunConfig, statuses: Sequence[StageStatus]) -> bool:
    """Whether all stages are fresh, and MLflow's registry has compared the reports."""
    reports = [status for status in statuses if status.stage.startswith("evaluate")]
    return all(status.state == "fresh" for status in statuses) and all(
        _gate_is_passed(settings, report) for report in reports
    )


def _print_up_to_date(status: StageStatus) -> None:
    if not is_quiet():
        console.print(f"{status.title:9} fresh: {status.folder}")


def _gate_is_passed(settings: RunConfig, report: StageStatus) -> bool:
    """Whether a fresh report has also been compared in MLflow's registry. It may not have been, if
    the process was killed in between."""
    if report.manifest and "distill" in report.manifest.parents:
        settings = settings.distilled
    if not settings.evaluate.require or not report.manifest:
        return True
    from flows.tracking.tracker import gate_is_passed

    return gate_is_passed(settings, report.manifest)


def encode(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Stage 2: encode images (VAE) and captions (text encoder) once, into Parquet and NPZ
    shards."""
    output.choose()
    run_one("encode", config, overrides, force=force)


def train(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Stage 3: train the denoiser on the encodings.

    A stopped training resumes from its last checkpoint.

    Example: tld train tiny train.steps=500
    """
    output.choose()
    run_one("train", config, overrides, force=force)


def evaluate(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Stage 4: sample the captions of held-out pairs, score the samples, and write the report.

    Example, of the distilled model: tld evaluate tiny distill.sample_steps=4
    evaluate.model=distilled
    """
    output.choose()
    run_one("evaluate", config, overrides, force=force)


def distill(
    config: Config,
    *overrides: Overrides,
    force: Force = False,
    output: Output = DEFAULT_VERBOSITY,
) -> None:
    """Stage 5, optional: distill the trained model to one that samples in a few steps, without
    guidance. The run needs a section distill.

    A stopped distillation resumes from its last checkpoint. Commands use the distilled model if
    evaluate.model is distilled.

    Example: tld distill tiny distill.sample_steps=4
    """
    output.choose()
    run_one("distill", config, overrides, force=force)


def run_one(stage: StageName, config: Path, overrides: Sequence[str], *, force: bool) -> None:
    """Run one stage alone, if its parents are fresh. Raises UserError if one is not."""
    from flows.cli.results import print_results
    from flows.terminal.progress import Progress
    from pipeline.maintenance.reasons import stage_reasons
    from pipeline.preflight.check import check_run
    from pipeline.run.train_nodes import lead_or_join
    from pipeline.stages.freshness import parent_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    inputs = RunInputs(settings)
    if stage not in inputs.stages:
        raise UserError(f"cannot {stage}: {_NO_DISTILLATION}")
    parents = parent_statuses(inputs, stage).values()
    if missing := [parent for parent in parents if parent.state != "fresh"]:
        words = quote_overrides(config, overrides)
        if stage == missing[-1].stage:  # of the phase before
            words = quote_overrides(config, [*overrides, f"phase={missing[-1].phase}"])
        raise UserError(
            f"cannot {stage}: the output of {missing[0].title} for these settings is "
            f"{missing[0].state} in {location_of(settings)}. First run\n"
            f"  tld run {words} --until {missing[-1].stage}"
        )
    check_run(settings)
    forced = (stage,) if force else ()
    reasons = stage_reasons(inputs, forced)
    reason = next(one for one in reversed(reasons) if one.status.stage == stage)
    status = reason.status
    gate = stage != "evaluate" or _gate_is_passed(settings, status)
    if status.state == "fresh" and not force and gate:
        _print_up_to_date(status)
        return

    def lead() -> Manifest:
        announce([reason], settings, forced)
        with with_prefect(settings, [status.title]):
            from flows.text_to_image import one_stage

            return one_stage(settings, stage, force=force)

    say = Progress("train").finish
    output = lead_or_join(settings, lead, say) if stage == "train" else lead()
    if output and stage == "evaluate":
        print_results(config, overrides, settings)
