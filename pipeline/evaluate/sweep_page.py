"""Output files of a sampling sweep: sweep.html and .png for people, .json for programs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_catalog.scores import SCORES
from data_catalog.storage.files import replacing, write_atomically
from data_catalog.storage.manifest import Manifest
from pipeline.compute.hardware import hardware
from pipeline.evaluate.sweep_points import Point, SamplingVariant, Sweep
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
        meaning=SCORES[swept.measure].meaning,
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
        "distilled": swept.distilled and _as_json(swept.distilled, swept),
    }
    write_atomically(folder / "sweep.json", json.dumps(results, indent=2) + "\n")
    write_atomically(folder / PAGE, page)


def _as_json(point: Point, swept: Sweep) -> dict[str, object]:
    return {
        **asdict(point.way.sampling),
        "ema": point.way.ema,
        "latency_s": point.latency_s,
        swept.measure: point.quality.as_json(),
        "on_front": point in swept.front,
        "chosen": point is not swept.distilled and point.way == swept.chosen,
        "best": point is swept.best,
    }


def trade_off(swept: Sweep) -> Figure:
    """Plot of quality against latency: a line for each guidance scale, solver and average."""
    with drawn(figsize=(7.2, 4.4)) as figure:
        axes = figure.subplots()
        for label, points in _lines(swept).items():
            _draw_line(axes, label, points)
        front = swept.front
        x, y = [p.latency_s for p in front], [p.quality.value for p in front]
        dotted: dict[str, Any] = {"color": "0.3", "linestyle": ":", "linewidth": 2.5}
        axes.plot(x, y, **dotted, zorder=0, label="Pareto-optimal")
        if swept.distilled:
            _draw_line(axes, "distilled model", [swept.distilled])
        own = next(point for point in swept.points if point.way == swept.chosen)
        hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": "k"}
        for point, marker, label in ((own, "s", "config"), (swept.best, "*", "recommended")):
            axes.plot(
                point.latency_s,
                point.quality.value,
                marker=marker,
                markersize=17,
                **hollow,
                linestyle="none",
                label=label,
            )
        axes.set(
            xlabel="seconds per image, sampled alone; the labels are steps",
            ylabel=swept.measure.replace("_", " "),
            xscale="log",
        )
        axes.grid(alpha=0.3, which="both")
        figure.legend(loc="outside right upper", fontsize=9, markerscale=0.6)
    return figure


def _lines(swept: Sweep) -> dict[str, list[Point]]:
    """The points of each line, by its label, with growing steps."""
    lines: dict[str, list[Point]] = defaultdict(list)
    for point in sorted(
        swept.points, key=lambda point: (point.way.sampling.guidance, point.way.sampling.steps)
    ):
        lines[_label(point.way, swept)].append(point)
    return lines


def _draw_line(axes: Axes, label: str, points: list[Point]) -> None:
    """Draw a line with the intervals of its points and, beside each, its number of steps."""
    x, y = [p.latency_s for p in points], [p.quality.value for p in points]
    intervals = [p.quality.interval or (p.quality.value, p.quality.value) for p in points]
    ends = [
        [value - low for value, (low, _) in zip(y, intervals, strict=True)],
        [high - value for value, (_, high) in zip(y, intervals, strict=True)],
    ]
    thin: dict[str, Any] = {"linewidth": 1.2, "elinewidth": 0.7, "capsize": 2}
    axes.errorbar(x, y, ends, label=label, marker="o", markersize=4, **thin)
    text: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": "0.35"}
    for point in points:
        place = (point.latency_s, point.quality.value)
        axes.annotate(str(point.way.sampling.steps), place, (4, 4), **text)


def _label(way: SamplingVariant, swept: Sweep) -> str:
    """Label of a line: the guidance scale, and whatever else varies in the sweep."""
    parts = [f"guidance {way.sampling.guidance:g}"]
    if len({point.way.sampling.solver for point in swept.points}) > 1:
        parts.append(way.sampling.solver)
    if len({point.way.ema for point in swept.points}) > 1:
        parts.append(f"average {way.ema}")
    return ", ".join(parts)
