"""`make demo-emoji`: the shipped config on the real pictures, with few of them and few steps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import REPOSITORY, tld
from tests.support.emoji import EMOJI, needs_emoji
from tests.support.feature_networks import needs_efficientnet
from tests.support.text_encoders import minilm, needs_minilm


def test_make_takes_the_images_and_the_text_encoder() -> None:
    command = ["make", "-n", "demo-emoji", "IMAGES=a folder", "TEXT_ENCODER=b/folder"]
    lines = subprocess.check_output(command, cwd=REPOSITORY, text=True).splitlines()
    run = "tld run conf/emoji.yaml 'download.images=a folder' 'encode.text_encoder=b/folder'"
    assert any(line.endswith(run) for line in lines)


@needs_emoji
@needs_minilm
@needs_efficientnet
@pytest.mark.slow
def test_the_config_makes_a_report_with_what_there_is_to_compare_with(tmp_path: Path) -> None:
    settings = [
        f"root={tmp_path}",
        f"download.images={EMOJI}",
        f"encode.text_encoder={minilm()}",
        "download.limit=900",
        "model.width=64",
        "model.layers=1",
        "train.steps=20",
        "train.warmup_steps=5",
        "evaluate.prompts=60",
        "evaluate.steps=4",
    ]
    ran = tld("run", "emoji", *settings)
    assert ran.returncode == 0, ran.stderr
    report = stage_statuses(RunInputs(load_config(Path("emoji"), settings)))["evaluate"].manifest
    assert report
    scores = json.loads(report.file("metrics.json").read_text())
    for name in ("retrieval_at_1", "retrieval_at_5", "frechet_distance/efficientnet-lite0"):
        assert {name, f"reference/{name}"} <= scores.keys()
    page = report.file("report.html").read_text()
    for text in ("training images: ", "in the place of the samples", "Retrieval of the concept"):
        assert text in page
