"""A training as its report shows it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from data_catalog.model_files import EVENTS_FILE
from pipeline.evaluate.training_history import training_charts, training_samples
from tests.support.workspace import make_workspace, output


def test_every_metric_has_a_chart_of_its_own_and_training_and_held_out_loss_share_none(
    tmp_path: Path,
) -> None:
    model = output(make_workspace(tmp_path / "data"), "train")
    before = [chart.label for chart in training_charts(model)]
    rates = [
        {"kind": "metrics", "step": step, "values": {"lr": 0.1 / step, "images_per_s": 9.0}}
        for step in (1, 2)
    ]
    with model.file(EVENTS_FILE).open("a") as events:
        events.writelines(json.dumps(rate) + "\n" for rate in rates)

    assert before == [
        "training loss (weighted)",
        "held-out loss (plain)",
        "held-out loss by noise level",
    ]
    assert [chart.label for chart in training_charts(model)] == [
        *before,
        "learning rate",
        "images/s",
    ]


def test_a_metric_that_was_logged_once_is_no_curve(tmp_path: Path) -> None:
    model = output(make_workspace(tmp_path / "data"), "train")
    event = {"kind": "metrics", "step": 1, "values": {"loss": 1.0}}
    model.file(EVENTS_FILE).write_text(json.dumps(event) + "\n")

    assert training_charts(model) == []


def test_samples_along_the_training_begin_with_the_first_and_end_with_the_last(
    tmp_path: Path,
) -> None:
    model = output(make_workspace(tmp_path / "data"), "train")
    assert training_samples(model) == []
    samples = model.folder / "samples"
    samples.mkdir()
    for step in range(100, 1100, 100):
        Image.new("RGB", (800, 600)).save(samples / f"step-{step:08d}.png")
    (samples / "notes.png").write_text("no grid")

    labels = [grid.label for grid in training_samples(model)]

    assert labels == ["step 100", "step 400", "step 700", "step 1,000"]
