"""sweep.html, .png and .json: quality against time, for people and for programs. Knows no
models."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from data_catalog.scores import EXPLAINED
from data_catalog.storage.files import replacing, write_atomically
from data_catalog.storage.manifest import Manifest
from pipeline.compute.hardware import hardware
from pipeline.evaluate.sweep import Point, SamplingVariant, Sweep
from pipeline.reporting.charts import drawn, svg_uri
from pipeline.reporting.render import render_page

PAGE = "sweep.html"


def write_sweep(folder: Path, name: str, model: Manifest, swept: Sweep) -> None:
    """Write all three files into the folder."""
    figure = trade_off(swept)
    page = render_page(
        "sweep.html.j2",
        name=name,
        model=model,
        swept=swept,
        explained=EXPLAINED[swept.measure],
        chart=svg_uri(figure),
        points=sorted(swept.points, key=lambda point: point.latency_s),
        front=swept.front,
        best=swept.best,
        machine=hardware(),
    )
    with replacing(folder / "sweep.png") as unfinished:
        figure.savefig(unfinished, dpi=110)
    results = {
        "measure": swept.measure,
        "machine": hardware(),
        "points": [_as_json(point, swept) for point in swept.points],
    }
    write_atomically(folder / "sweep.json", json.dumps(results, indent=2) + "\n")
    write_atomically(folder / PAGE, page)


def _as_json(point: Point, swept: Sweep) -> dict[str, object]:
    return {
        **asdict(point.way.sampling),
        "ema": point.way.ema,
        "latency_s": point.latency_s,
        swept.measure: asdict(point.quality),
        "on_front": point in swept.front,
        "chosen": point.way == swept.chosen,
        "best": point is swept.best,
    }


def trade_off(swept: Sweep) -> Figure:
    """A line for each guidance scale, solver and average, along which steps grow."""
    lines: dict[str, list[Point]] = defaultdict(list)
    for point in sorted(
        swept.points, key=lambda point: (point.way.sampling.guidance, point.way.sampling.steps)
    ):
        lines[_label(point.way, swept)].append(point)
    with drawn(figsize=(7.2, 4.4)) as figure:
        axes = figure.subplots()
        for label, points in lines.items():
            x, y = [p.latency_s for p in points], [p.quality.value for p in points]
            ends = [
                [p.quality.value - p.quality.low for p in points],
                [p.quality.high - p.quality.value for p in points],
            ]
            axes.errorbar(
                x,
                y,
                ends,
                label=label,
                marker="o",
                markersize=4,
                linewidth=1.2,
                elinewidth=0.7,
                capsize=2,
            )
            for point in points:
                axes.annotate(str(point.way.sampling.steps), (point.latency_s, point.quality.value), (4, 4),
                              textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
        front = swept.front
        axes.plot([p.latency_s for p in front], [p.quality.value for p in front], color="0.3", linestyle=":",
                  linewidth=2.5, zorder=0, label="none better in both")  # fmt: skip
        own = next(point for point in swept.points if point.way == swept.chosen)
        for point, marker, label in (
            (own, "s", "of the config"),
            (swept.best, "*", "fastest of the best"),
        ):
            axes.plot(point.latency_s, point.quality.value, marker=marker, markersize=17, markerfacecolor="none",
                      markeredgecolor="k", linestyle="none", label=label)  # fmt: skip
        axes.set(
            xlabel="seconds a picture, drawn alone; at each point its steps",
            ylabel=swept.measure.replace("_", " "),
            xscale="log",
        )
        axes.grid(alpha=0.3, which="both")
        figure.legend(loc="outside right upper", fontsize=9, markerscale=0.6)
    return figure


def _label(way: SamplingVariant, swept: Sweep) -> str:
    """What tells a line from others: the guidance scale, and what else is not the same
    everywhere."""
    parts = [f"guidance {way.sampling.guidance:g}"]
    if len({point.way.sampling.solver for point in swept.points}) > 1:
        parts.append(way.sampling.solver)
    if len({point.way.ema for point in swept.points}) > 1:
        parts.append(f"average {way.ema}")
    return ", ".join(parts)
