"""`tld compare`: two runs, sampled with the same prompts and the same noise."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from flows.cli.out_path import folder_problems
from flows.terminal.console import console, load, location_of
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable

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
    settings: Annotated[
        bool,
        Parameter(
            negative="",
            help="Sample nothing; print only the settings that differ, from A to B. The runs need "
            "not be trained.",
        ),
    ] = False,
) -> None:
    """Compare two trained runs on the same prompts and seeds: images side by side, scores with
    confidence intervals of their differences, and settings. With --settings, the settings alone.

    Example: tld compare tiny "tiny train.lr=5e-4" --prompts 64
    """
    if prompts is not None and prompts < 2:
        raise UserError(f"--prompts must be at least 2, got {prompts}")
    if out is not None and (problems := folder_problems(out, with_parents=True)):
        raise UserError("\n".join(problems))
    if settings:
        if prompts is not None or out is not None:
            raise UserError("--settings samples nothing: leave out --prompts and --out")
        _print_changes(*_both(_load_run, [run_a, run_b], overrides))
        return
    trained = _both(_find, [run_a, run_b], overrides)

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


_Run = TypeVar("_Run")


def _print_changes(first: tuple[str, RunConfig], second: tuple[str, RunConfig]) -> None:
    from pipeline.stages.setting_changes import run_changes

    changes = run_changes(first[1], second[1])
    console.print("\n".join(map(str, changes)) or "no setting differs")


def _both(
    find: Callable[[str, Sequence[str]], _Run], texts: Sequence[str], overrides: Sequence[str]
) -> list[_Run]:
    """What `find` returns for each run. Raises UserError with the problems of both."""
    runs: list[_Run] = []
    problems = []
    for name, text in zip("AB", texts, strict=True):
        try:
            runs.append(find(text, overrides))
        except ValueError as error:
            problems.append(f"run {name}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return runs


def _load_run(text: str, overrides: Sequence[str]) -> tuple[str, RunConfig]:
    """A run as it was typed, and its settings."""
    words = shlex.split(text)
    if not words:
        raise UserError("is empty; name a config, such as tiny")
    return shlex.join([*words, *overrides]), load(Path(words[0]), [*words[1:], *overrides])


def _find(text: str, overrides: Sequence[str]) -> _Trained:
    """A run that is trained. Raises UserError if it is not."""
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    name, config = _load_run(text, overrides)
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses[config.model_stage].manifest
    if not encodings or not model:
        raise UserError(
            f"no model has been {config.evaluate.model} with these settings in "
            f"{location_of(config)}. First run\n  tld run {name} --until {config.model_stage}"
        )
    return name, config, encodings, model


def _table(rows: list[Row]) -> TextTable:
    table = TextTable("")
    for name in ("A", "B", "B - A", "95 %", "better"):
        table.add_column(name, justify="right")
    for row in rows:
        estimates = row.first, row.second, row.difference
        values = [f"{estimate.value:.4g}" for estimate in estimates]
        table.add_row(row.name, *values, str(row.difference), row.verdict)
    return table
