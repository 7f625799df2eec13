"""`tld sweep`: image quality against sampling time, over guidance, steps and solvers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.model_files import Average
from flows.cli.groups import Config, Overrides
from flows.cli.model_source import trained_run
from flows.cli.problems import refuse
from flows.terminal.console import console, load
from tld_model.config import SolverName

if TYPE_CHECKING:
    from pathlib import Path

    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.evaluate.sweep_points import Sweep

_Guidances = Annotated[
    tuple[float, ...],
    Parameter(consume_multiple=True, negative="", help="Guidance scales to try."),
]
_StepCounts = Annotated[
    tuple[int, ...],
    Parameter(consume_multiple=True, negative="", help="Numbers of sampling steps to try."),
]
_Solvers = Annotated[
    tuple[SolverName, ...],
    Parameter(
        consume_multiple=True,
        negative="",
        show_default=False,
        help="Samplers to try. [default: evaluate.solver]",
    ),
]
_Emas = Annotated[
    tuple[Average, ...],
    Parameter(
        consume_multiple=True,
        negative="",
        show_default=False,
        show_choices=False,
        help="EMAs of train.ema_decay to try, numbered from 0, or best (train.score.best_by). "
        "[default: evaluate.ema]",
    ),
]


def sweep(
    config: Config,
    *overrides: Overrides,
    guidance: _Guidances = (1, 2, 3, 4.5, 6),
    steps: _StepCounts = (5, 10, 20),
    solver: _Solvers = (),
    ema: _Emas = (),
    prompts: Annotated[
        int | None,
        Parameter(help="Number of held-out captions to sample. [default: evaluate.prompts]"),
    ] = None,
) -> None:
    """Sample the trained model of this run with every combination of settings, and plot quality
    against time.

    All combinations use the same held-out captions and the same noise. Combinations that were
    measured before are not measured again. If the run has distilled the model, that is on the plot
    too.

    Example: tld sweep tiny --guidance 1 2 4 --steps 5 10 --solver dpmpp_2m euler
    """
    settings = load(config, overrides)
    encodings, model, _ = trained_run(config, overrides, settings)

    from flows.terminal.progress import Progress, Shown
    from pipeline.evaluate import sweep as sweeping
    from pipeline.evaluate.sweep_page import write_sweep

    default = settings.evaluate
    emas: tuple[Average, ...] = ema or (default.ema,)
    problems = sweeping.problems(settings, guidance, steps, emas)
    if default.model == "distilled":
        problems.append(
            "evaluate.model=distilled samples in one way alone; sweep the trained model, whose "
            "plot shows the distilled one too"
        )
    if prompts is not None and prompts < 2:
        problems.append(f"--prompts must be at least 2, got {prompts}")
    refuse(problems, "cannot sweep")
    variants = sweeping.variants(default, guidance, steps, solver or (default.solver,), emas)
    count = prompts or default.prompts
    with Progress("sweep") as show:
        swept = sweeping.sweep(settings, encodings, model, variants, count, Shown(show))
        if distilled := _distilled(settings):
            ways = sweeping.variants(settings.distilled.evaluate, (), (), (), ())
            point = sweeping.sweep(
                settings.distilled, encodings, distilled, ways, count, Shown(show)
            ).best
            swept = replace(swept, distilled=point)
    folder = sweeping.sweep_folder(settings, model)
    write_sweep(folder, settings.name, model, swept)
    console.print(_summary(swept, folder))


def _distilled(settings: RunConfig) -> Manifest | None:
    """The distilled model beside the trained one that is swept, if there is one."""
    if len(settings.variants) == 1:
        return None
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    return stage_statuses(RunInputs(settings))["distill"].manifest


def _summary(swept: Sweep, folder: Path) -> str:
    """The recommended settings, and where the page is."""
    from pipeline.evaluate.sweep_page import PAGE

    best = swept.best
    why = "the fastest within the noise of the best" if best.quality.interval else "the best"
    return (
        f"recommended, {why}: {swept.measure} "
        f"{best.quality.value:.3g} ({best.quality}), {best.latency_s:.3g} s per image\n"
        f"  {best.way.overrides()}\n  page     {folder / PAGE}\n  chart    {folder / 'sweep.png'}"
    )
