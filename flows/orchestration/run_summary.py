"""A summary of a run as Markdown, for Prefect's page: its stages, scores and report."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.figures import ReportFigures
from data_catalog.scores import is_part, no_interval
from data_catalog.storage.manifest import Manifest
from pipeline.stages.freshness import EVALUATE_DISTILLED, run_statuses
from pipeline.stages.run_inputs import RunInputs


def run_page(inputs: RunInputs) -> str:
    """A table of stages with the MLflow runs that produced them, and a table of scores with their
    confidence intervals."""
    statuses = run_statuses(inputs)
    lines = [f"## {inputs.config.name}", ""]
    lines += [
        "| stage | state | rows | seconds | made by MLflow run |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for status in statuses:
        output, cells = status.manifest, " | | "
        if output:
            cells = f"{output.rows:,} | {output.seconds:,.0f} | `{output.made_by}`"
        lines.append(f"| {status.title} | {status.state} | {cells} |")
    for status in statuses:
        if status.stage in ("evaluate", EVALUATE_DISTILLED) and status.manifest:
            lines += _scores(status.manifest)
    return "\n".join(line for i, line in enumerate(lines) if line or not i or lines[i - 1])


def _scores(report: Manifest) -> Iterator[str]:
    """The scores of a report as a table."""
    figures = ReportFigures.of(report)
    model = "the distilled model" if "distill" in report.parents else "the model"
    yield from ("", f"Scores of {model}:", "")
    yield from ("| score | value | 95 % interval |", "| --- | ---: | --- |")
    for name, value in figures.scores.items():
        if is_part(name):
            continue
        interval = figures.intervals.get(name)
        missing = no_interval(name, report.rows)
        low_high = "{:.3g} to {:.3g}".format(*interval) if interval else missing
        yield f"| {name} | {value:.4g} | {low_high} |"
    yield from ("", f"Report: `{report.file('report.html')}`")
