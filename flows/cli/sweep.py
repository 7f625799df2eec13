"""`tld sweep`: which way to sample a trained model is worth its time."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.model_source import trained_run
from flows.terminal.console import console, load
from flows.terminal.errors import UserError
from tld_model.config import SolverName


def sweep(
    config: Config,
    *overrides: Overrides,
    guidance: Annotated[
        tuple[float, ...], Parameter(consume_multiple=True, negative="", help="Guidance scales.")
    ] = (
        1,
        2,
        3,
        4.5,
        6,
    ),
    steps: Annotated[
        tuple[int, ...], Parameter(consume_multiple=True, negative="", help="Sampling steps.")
    ] = (
        5,
        10,
        20,
    ),
    solver: Annotated[
        tuple[SolverName, ...],
        Parameter(consume_multiple=True, negative="", help="Solvers; evaluate.solver without it."),
    ] = (),
    ema: Annotated[
        tuple[int, ...],
        Parameter(
            consume_multiple=True,
            negative="",
            help="Averages of train.ema_decay; evaluate.ema without it.",
        ),
    ] = (),
    prompts: Annotated[
        int | None, Parameter(help="Held-out captions; evaluate.prompts without it.")
    ] = None,
) -> None:
    """Sample the trained model of this run in every combination, and plot quality against time.

    All on the same held-out captions, from the same noise. What was measured once is not measured again. For example:
    tld sweep conf/tiny.yaml --guidance 1 2 4 --steps 5 10 --solver dpmpp_2m euler
    """
    settings = load(config, overrides)
    encodings, model, _ = trained_run(config, overrides, settings)

    from flows.terminal.progress import Progress, Shown
    from pipeline.evaluate import sweep as sweeping
    from pipeline.evaluate.sweep_page import PAGE, write_sweep

    usual = settings.evaluate
    averages = ema or (usual.ema,)
    wrong = sweeping.problems(settings, guidance, steps, averages)
    if prompts is not None and prompts < 2:
        wrong.append(f"--prompts must be at least 2, got {prompts}")
    if wrong:
        raise UserError("cannot sweep:\n" + "\n".join(f"  {problem}" for problem in wrong))
    wanted = sweeping.variants(usual, guidance, steps, solver or (usual.solver,), averages)
    with Progress("sweep") as show:
        swept = sweeping.sweep(
            settings, encodings, model, wanted, prompts or usual.prompts, Shown(show)
        )
    folder = sweeping.sweep_folder(settings, model)
    write_sweep(folder, settings.name, model, swept)
    best = swept.best
    console.print(
        f"fastest of the best: {swept.measure} {best.quality.value:.3g} "
        f"({best.quality}), {best.latency_s:.3g} s a picture\n"
        f"  {best.way.overrides()}\n  page     {folder / PAGE}\n  picture  {folder / 'sweep.png'}",
    )
