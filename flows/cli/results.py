"""The results of a run on the terminal: scores, files, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.console import console, quote_overrides

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig


def print_results(config: Path, overrides: Sequence[str], settings: RunConfig) -> None:
    """Print the scores of the run's reports, the paths of the results, and what to try next."""
    from pipeline.stages.freshness import EVALUATE_DISTILLED, statuses_with_distilled
    from pipeline.stages.run_inputs import RunInputs

    statuses = statuses_with_distilled(RunInputs(settings))
    names = [name for name in ("evaluate", EVALUATE_DISTILLED) if name in statuses]
    reports = [statuses[name].manifest for name in names]
    for variant, report in zip(settings.variants, reports, strict=True):
        if report:
            _print_scores(variant, report, has_several=len(reports) > 1)
    prompt = (
        "a small red star in the top left on a blue background"
        if settings.download.urls == "shapes"
        else "a caption like those in your table"
    )
    this_run = quote_overrides(config, overrides)
    steps = settings.setting("train.steps")
    longer = [o for o in overrides if not o.startswith(f"{steps}=")]
    longer.append(f"{steps}={settings.train.steps * 2}")
    of_distilled = ""
    if reports[-1] and len(reports) > 1:
        words = f'{this_run} evaluate.model=distilled "{prompt}"'
        of_distilled = f"  tld sample {words}   # the distilled model\n"
    console.print(
        f'\nTry next:\n  tld sample {this_run} "{prompt}"\n{of_distilled}  tld ui {this_run}\n'
        f"  tld serve {this_run}\n  tld run {quote_overrides(config, longer)}"
        f"   # {_where_a_longer_training_begins(settings)}",
    )


def _print_scores(settings: RunConfig, report: Manifest, *, has_several: bool) -> None:
    """Print the scores of a report with their intervals, and its files."""
    from data_catalog.figures import ReportFigures
    from data_catalog.scores import no_interval, whole_scores

    console.print()
    if has_several:
        model, steps = settings.evaluate.model, settings.evaluate.steps
        console.print(f"{model}, sampled in {steps} step{'s' if steps > 1 else ''}:")
    figures = ReportFigures.of(report)
    printed = [score.name for score in whole_scores(figures.scores) if score.is_printed]
    width = max((len(name) for name in printed), default=0) + 1
    for name in printed:
        value, ends = figures.scores[name], figures.intervals.get(name)
        interval = "{:.3g} to {:.3g}".format(*ends) if ends else no_interval(name, report.rows)
        console.print(f"  {name:{width}} {value:<10.4g} {interval}")
    console.print(f"\n  grid    {report.file('grid.png')}\n  report  {report.file('report.html')}")


def _where_a_longer_training_begins(settings: RunConfig) -> str:
    if settings.train.lr_schedule == "constant":
        return f"longer, from the checkpoint of step {settings.train.trunk_steps}"
    return "longer, from step 0: the cosine of the learning rate depends on the number of steps"
