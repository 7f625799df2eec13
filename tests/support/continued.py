"""Trainings of one workspace, on made-up encodings, as `tld run` does them: in folders named by
their fingerprints, and as processes that a test may kill.

python -m tests.support.continued ENCODINGS ROOT train.steps=60 …
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from data_catalog.storage.manifest import Manifest, read_manifest
from pipeline.config.load import load_config
from pipeline.stages.run_inputs import RunInputs, StageRun
from pipeline.stages.run_stage import run_stage
from pipeline.train.continuation import begin_training
from pipeline.train.stage import train
from tests.support.command import REPOSITORY
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tests.support.training import MODEL, SETTINGS

CONSTANT = "train.lr_schedule=constant"


def training(encodings: Path, root: Path, *overrides: str) -> StageRun:
    """A small training of a workspace, which has not begun."""
    settings = SETTINGS | {"optimizer": "adamw", "ema_decay": 0.99}
    given_model = MODEL.model_dump(mode="json", exclude_unset=True)
    config = load_config(
        TINY,
        [
            *small(root),
            *(f"train.{name}={value}" for name, value in settings.items()),
            *(f"model.{name}={value}" for name, value in given_model.items()),
            *overrides,
        ],
    )
    parent = read_manifest(encodings)
    assert parent
    return RunInputs(config).stage_run("train", {"encode": parent})


def finish_training(run: StageRun, track: RememberingTracker) -> Manifest:
    """Train, from a checkpoint of another training where there is one."""
    begin = partial(begin_training, run, from_others=True)
    config, encodings = run.config, run.parents["encode"]
    return run_stage(
        run,
        track,
        lambda out: train(encodings, config.train, config.model, out, track, begin),
    )


def start(encodings: Path, root: Path, *overrides: str) -> subprocess.Popen[str]:
    """`finish_training` in a process of its own."""
    command = [sys.executable, "-m", "tests.support.continued", str(encodings), str(root)]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=REPOSITORY,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    finish_training(
        training(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]), RememberingTracker()
    )
