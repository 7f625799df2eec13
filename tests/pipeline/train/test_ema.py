"""Averages of two lengths from training to the report: a file each, and evaluation of the one that
is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.evaluate.stage import evaluate
from pipeline.scoring.held_out_loss import held_out_loss
from pipeline.stages.contract import Output
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.stage import train
from tests.support.mapping import map_here
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tld_model.checkpoint import load_denoiser

pytestmark = pytest.mark.slow


def test_each_average_has_a_file_and_is_evaluated_when_asked_for(
    tmp_path: Path, track: RememberingTracker
) -> None:
    settings = small(
        tmp_path,
        download__limit=20,
        train__steps=3,
        train__ema_decay="[0.1, 0.99]",
        evaluate__prompts=2,
    )
    first, second = (
        load_config(TINY, [*settings, f"evaluate.ema={number}"]) for number in range(2)
    )

    def run(stage: str, parents: dict[str, Manifest], work: Callable[[Path], Output]) -> Manifest:
        return run_stage(
            RunInputs(second if stage == "evaluate" else first).stage_run(stage, parents),
            track,
            work,
        )

    images = run("download", {}, lambda out: download(first.download, out, track, map_here))
    encodings = run(
        "encode",
        {"download": images},
        lambda out: encode(images, first.encode, out, track, map_here),
    )
    work = partial(train, encodings, first.train, first.model, track=track)
    model = run("train", {"encode": encodings}, work)
    names = ["denoiser.safetensors", "denoiser-ema1.safetensors"]
    assert list(model.shards[0].files) == names
    held_out = model.figures["held_out_pairs"]
    warnings = [text for text in track.warnings if "held out of training" in text]
    assert len(warnings) == 1, "of so few pairs, once"
    assert f"only {held_out} of 20 pairs" in warnings[0]

    report = run(
        "evaluate",
        {"encode": encodings, "train": model},
        lambda out: evaluate(encodings, model, second.evaluate, out, track),
    )
    pairs, split = open_dataset(encodings), split_pairs(encodings, first.train.held_out_fraction)
    losses = [
        held_out_loss(load_denoiser(model.file(name), "cpu"), pairs, split, "cpu")["held_out_loss"]
        for name in names
    ]
    assert losses[0] != losses[1]
    assert report.figures["scores"]["held_out_loss"] == pytest.approx(losses[1])
    assert model.figures["held_out_loss"] == pytest.approx(losses[0]), "training tells of the first"
