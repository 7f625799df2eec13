"""A training as its report shows it: curves of what it logged, and its samples step by step."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_catalog.image_formats import open_image
from data_catalog.model_files import EVENTS_FILE, read_events
from data_catalog.storage.manifest import Manifest
from pipeline.reporting.charts import Points, curves
from pipeline.reporting.render import image_uri

_SAMPLES = re.compile(r"step-(\d+)\.png")
_MOST_SAMPLES = 4  # grids shown
_WIDEST = 420  # pixels of a grid
# What a chart shows, with its scale. Training weighs the loss by noise level, the held-out loss is
# plain, so the two share no axis.
_CHARTS: tuple[tuple[str, str, Literal["linear", "log"]], ...] = (
    ("loss", "training loss (weighted)", "log"),
    ("held_out_loss", "held-out loss (plain)", "log"),
    ("lr", "learning rate", "linear"),
    ("gradient_norm", "gradient norm before clipping", "log"),
    ("images_per_s", "images/s", "linear"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart, or a grid of samples, as a data URI."""

    uri: str
    label: str


def training_charts(model: Manifest) -> list[Picture]:
    """A chart of each metric that the training logged more than once."""
    history = logged_metrics(model.file(EVENTS_FILE))
    charts = [
        Picture(curves({label: history[name]}, label, scale), label)
        for name, label, scale in _CHARTS
        if len(history.get(name, ())) > 1
    ]
    prefix = "held_out_loss/"
    bins = {
        f"noise {name.removeprefix(prefix)}": points
        for name, points in history.items()
        if name.startswith(prefix) and len(points) > 1
    }
    if bins:
        label = "held-out loss by noise level"
        charts.insert(2, Picture(curves(bins, "held-out loss"), label))
    return charts


def training_samples(model: Manifest) -> list[Picture]:
    """Some of the grids that the training sampled, first and last among them, of those on this
    machine."""
    grids = sorted(_grids(model.folder / "samples"))
    if len(grids) > _MOST_SAMPLES:
        chosen = np.linspace(0, len(grids) - 1, _MOST_SAMPLES).round().astype(int)
        grids = [grids[number] for number in chosen]
    return [Picture(_shrunk(path), f"step {step:,}") for step, path in grids]


def _grids(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("step-*.png"):
        if match := _SAMPLES.fullmatch(path.name):
            yield int(match[1]), path


def _shrunk(path: Path) -> str:
    with open_image(path) as image:
        image.thumbnail((_WIDEST, 4 * _WIDEST))
        return image_uri(np.asarray(image.convert("RGB")))


def logged_metrics(events: Path) -> dict[str, Points]:
    """The metrics of an event log: name -> (step, value), in order."""
    metrics: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in read_events(events):
        if event["kind"] == "metrics":
            for name, value in event["values"].items():
                metrics[name].append((event["step"], value))
    return dict(metrics)
