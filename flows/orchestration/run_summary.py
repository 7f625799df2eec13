"""Summaries of a run: as Markdown for Prefect's page, and as text at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from data_catalog.figures import ReportFigures
from data_catalog.scores import is_part, no_interval, whole_scores
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.stages.freshness import EVALUATE_DISTILLED, run_statuses, statuses_with_distilled
from pipeline.stages.run_inputs import RunInputs

AddressOf = Callable[[str, str], str]
"""The address of a run in MLflow's pages, or of one of its artifacts."""


def reports_of(inputs: RunInputs) -> list[Manifest | None]:
    """The report of each variant of a run, where it is fresh."""
    statuses = statuses_with_distilled(inputs)
    names = [name for name in ("evaluate", EVALUATE_DISTILLED) if name in statuses]
    return [statuses[name].manifest for name in names]


def closing_summary(config: RunConfig, reports: Sequence[Manifest | None]) -> str:
    """The scores of the reports with their intervals, and their files."""
    variants = zip(config.variants, reports, strict=True)
    several = len(reports) > 1
    texts = [
        "\n".join(_closing_lines(variant, report, has_title=several))
        for variant, report in variants
        if report
    ]
    return "\n\n".join(texts)


def run_page(inputs: RunInputs, run_id: str, address_of: AddressOf) -> str:
    """Links to MLflow, a table of stages with the MLflow runs that produced them, and a table of
    scores with their confidence intervals."""
    statuses = run_statuses(inputs)
    lines = [f"## {inputs.config.name}", "", f"[This run in MLflow]({address_of(run_id, '')})"]
    lines[-1] += " (without an MLflow server of your own: while `tld ui` runs)"
    lines.append("")
    lines += [
        "| stage | state | rows | seconds | made by MLflow run |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for status in statuses:
        output, cells = status.manifest, " | | "
        if output:
            link = f"[`{output.made_by}`]({address_of(output.made_by, '')})"
            cells = f"{output.rows:,} | {output.seconds:,.0f} | {link if output.made_by else ''}"
        lines.append(f"| {status.title} | {status.state} | {cells} |")
    for status in statuses:
        if status.stage in ("evaluate", EVALUATE_DISTILLED) and status.manifest:
            lines += _scores(status.manifest, address_of)
    return "\n".join(line for i, line in enumerate(lines) if line or not i or lines[i - 1])


def _scores(report: Manifest, address_of: AddressOf) -> Iterator[str]:
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
    page = report.file("report.html")
    link = f"[in MLflow]({address_of(report.made_by, page.name)}), " if report.made_by else ""
    yield from ("", f"Report: {link}file `{page}`")


def _closing_lines(config: RunConfig, report: Manifest, *, has_title: bool) -> Iterator[str]:
    if has_title:
        steps = config.evaluate.steps
        yield f"{config.evaluate.model}, sampled in {steps} step{'s' if steps > 1 else ''}:"
    figures = ReportFigures.of(report)
    printed = [score.name for score in whole_scores(figures.scores) if score.is_printed]
    width = max((len(name) for name in printed), default=0) + 1
    for name in printed:
        value, ends = figures.scores[name], figures.intervals.get(name)
        interval = "{:.3g} to {:.3g}".format(*ends) if ends else no_interval(name, report.rows)
        yield f"  {name:{width}} {value:<10.4g} {interval}"
    yield ""
    yield f"  grid    {report.file('grid.png')}"
    yield f"  report  {report.file('report.html')}"
