"""Where a run stands, as Markdown for Prefect's page: its stages, its scores, and where the rest
is."""

from __future__ import annotations

from pipeline.config.run import RunConfig
from pipeline.stages.freshness import stage_statuses


def run_page(config: RunConfig) -> str:
    """A table of stages, a table of scores with their intervals, and the runs of MLflow that made
    them."""
    statuses = stage_statuses(config)
    lines = [f"## {config.name}", ""]
    lines += [
        "| stage | state | rows | seconds | made by MLflow run |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for stage, status in statuses.items():
        made = status.manifest
        told = f"{made.rows:,} | {made.seconds:,.0f} | `{made.made_by}`" if made else " | | "
        lines.append(f"| {stage} | {status.state} | {told} |")
    if report := statuses["evaluate"].manifest:
        scores, intervals = report.figures["scores"], report.figures["intervals"]
        lines += ["", "| score | value | 95 % interval |", "| --- | ---: | --- |"]
        for name, value in scores.items():
            low_high = "{:.3g} to {:.3g}".format(*intervals[name]) if name in intervals else ""
            lines.append(f"| {name} | {value:.4g} | {low_high} |" if "/" not in name else "")
        lines += ["", f"Report: `{report.file('report.html')}`"]
    return "\n".join(line for i, line in enumerate(lines) if line or not i or lines[i - 1])
