"""A summary of a run as Markdown, for Prefect's page: its stages, scores and report."""

from __future__ import annotations

from data_catalog.figures import ReportFigures
from data_catalog.scores import is_part, no_interval
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs


def run_page(inputs: RunInputs) -> str:
    """A table of stages with the MLflow runs that produced them, and a table of scores with their
    confidence intervals."""
    statuses = stage_statuses(inputs)
    lines = [f"## {inputs.config.name}", ""]
    lines += [
        "| stage | state | rows | seconds | made by MLflow run |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for stage, status in statuses.items():
        output, cells = status.manifest, " | | "
        if output:
            cells = f"{output.rows:,} | {output.seconds:,.0f} | `{output.made_by}`"
        lines.append(f"| {stage} | {status.state} | {cells} |")
    if report := statuses["evaluate"].manifest:
        figures = ReportFigures.of(report)
        lines += ["", "| score | value | 95 % interval |", "| --- | ---: | --- |"]
        for name, value in figures.scores.items():
            if is_part(name):
                continue
            interval = figures.intervals.get(name)
            missing = no_interval(name, report.rows)
            low_high = "{:.3g} to {:.3g}".format(*interval) if interval else missing
            lines.append(f"| {name} | {value:.4g} | {low_high} |")
        lines += ["", f"Report: `{report.file('report.html')}`"]
    return "\n".join(line for i, line in enumerate(lines) if line or not i or lines[i - 1])
