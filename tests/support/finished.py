"""A finished run, made here stage by stage: without Prefect and MLflow, whose start would take
longer than the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.evaluate.stage import evaluate
from pipeline.stages.contract import Output
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.stage import train
from tests.support.mapping import map_here
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker


def finish(overrides: Sequence[str], path: Path = TINY) -> RunConfig:
    """All four stages of a config, by default conf/tiny.yaml, with these overrides."""
    config, track = load_config(path, overrides), RememberingTracker()

    def run(stage: str, parents: dict[str, Manifest], work: Callable[[Path], Output]) -> Manifest:
        return run_stage(RunInputs(config).stage_run(stage, parents), track, work)

    images = run("download", {}, lambda out: download(config.download, out, track, map_here))
    encodings = run(
        "encode",
        {"download": images},
        partial(encode, images, config.encode, track=track, map_shards=map_here),
    )
    model = run(
        "train",
        {"encode": encodings},
        partial(train, encodings, config.train, config.model, track=track),
    )
    run(
        "evaluate",
        {"encode": encodings, "train": model},
        partial(evaluate, encodings, model, config.evaluate, track=track),
    )
    return config
