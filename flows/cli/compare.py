"""`tld compare`: two runs, sampled with the same prompts and the same noise."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.cli.out_path import folder_problems
from flows.terminal.console import console, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.evaluate.compare import Comparison
    from pipeline.evaluate.score_rows import Row

_RunText = Annotated[
    str,
    Parameter(help="A run as typed after tld run, in quotes: 'tiny train.lr=5e-4'."),
]


def compare(
    run_a: _RunText,
    run_b: _RunText,
    *overrides: Annotated[
        str, Parameter(help="Settings to change in both runs, as section.key=value.")
    ],
    prompts: Annotated[
        int | None,
        Parameter(help="Number of held-out captions to sample. [default: evaluate.prompts of A]"),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder to write into. [default: a folder in the workspace of A]"),
    ] = None,
) -> None:
    """Compare two trained runs on the same prompts and seeds: images side by side, scores with
    confidence intervals of their differences, and settings.

    Example: tld compare tiny "tiny train.lr=5e-4" --prompts 64
    """
    if prompts is not None and prompts < 2:
        raise UserError(f"--prompts must be at least 2, got {prompts}")
    if out is not None and (problems := folder_problems(out, with_parents=True)):
        raise UserError("\n".join(problems))
    trained = _trained([run_a, run_b], overrides)

    from flows.terminal.progress import Progress, Shown
    from pipeline.evaluate.compare import ComparisonError, TrainedRun, comparison_folder
    from pipeline.evaluate.compare import compare as compare_runs
    from pipeline.evaluate.comparison_page import write_comparison

    first, second = (TrainedRun(*run) for run in trained)
    prompts = prompts or max(2, first.config.evaluate.prompts)
    try:
        with Progress("compare") as show:
            comparison = compare_runs(first, second, prompts, Shown(show))
    except ComparisonError as error:
        raise UserError(str(error)) from error
    folder = out or comparison_folder(first, second, prompts)
    write_comparison(folder, comparison)
    console.print(_table(comparison.rows))
    console.print(f"\n  A  {first.name}\n  B  {second.name}\n")
    console.print(
        f"{_note(comparison)}\n"
        f"  page      {folder / 'comparison.html'}\n  images    {folder / 'comparison.png'}",
    )


def _note(comparison: Comparison) -> str:
    from data_catalog.scores import FEWEST_CAPTIONS, missing_distances

    prompts = len(comparison.captions)
    missing = missing_distances(prompts, comparison.drawn[0].judged.features)
    return (
        f"{prompts} prompts; 95 % is the confidence interval of B - A, which needs "
        f"{FEWEST_CAPTIONS} distinct captions" + (f"\n{missing}" if missing else "")
    )


_Trained = tuple[
    str, "RunConfig", "Manifest", "Manifest"
]  # as it was typed, settings, encodings, model


def _trained(texts: Sequence[str], overrides: Sequence[str]) -> list[_Trained]:
    """Both runs, which must be trained. Raises UserError with the problems of both."""
    runs: list[_Trained] = []
    problems = []
    for name, text in zip("AB", texts, strict=True):
        try:
            runs.append(_find(text, overrides))
        except ValueError as error:
            problems.append(f"run {name}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return runs


def _find(text: str, overrides: Sequence[str]) -> _Trained:
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    words = shlex.split(text)
    if not words:
        raise UserError("is empty; name a config, such as tiny")
    config = load(Path(words[0]), [*words[1:], *overrides])
    name = shlex.join([*words, *overrides])
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses[config.model_stage].manifest
    if not encodings or not model:
        raise UserError(
            f"no model has been {config.evaluate.model} with these settings in {config.folder}. "
            f"First run\n  tld run {name} --until {config.model_stage}"
        )
    return name, config, encodings, model


def _table(rows: list[Row]) -> Table:
    table = Table("", box=None, header_style="bold", pad_edge=False)
    for name in ("A", "B", "B - A", "95 %", "better"):
        table.add_column(name, justify="right")
    for row in rows:
        estimates = row.first, row.second, row.difference
        values = [f"{estimate.value:.4g}" for estimate in estimates]
        table.add_row(row.name, *values, str(row.difference), row.verdict)
    return table
