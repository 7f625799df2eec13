"""The results of a run on the terminal: scores, files, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.console import console, quote_overrides

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig


def print_results(config: Path, overrides: Sequence[str], settings: RunConfig) -> None:
    """Print the scores of the run's reports, the paths of the results, and what to try next."""
    from flows.orchestration.run_summary import closing_summary, reports_of
    from pipeline.stages.run_inputs import RunInputs

    reports = reports_of(RunInputs(settings))
    if summary := closing_summary(settings, reports):
        console.print(f"\n{summary}")
    prompt = (
        "a small red star in the top left on a blue background"
        if settings.download.urls == "shapes"
        else "a caption like those of your images"
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


def _where_a_longer_training_begins(settings: RunConfig) -> str:
    if settings.train.lr_schedule == "constant":
        return f"longer, from the checkpoint of step {settings.train.trunk_steps}"
    return "longer, from step 0: the cosine of the learning rate depends on the number of steps"
