"""Checks on held-out pairs: a stop cuts them short, the next process makes up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_catalog.model_files import EVENTS_FILE
from pipeline.compute.inference import inference_on
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.train.events import EventLog, set_events_aside
from pipeline.train.held_out_checks import HeldOutChecks
from pipeline.train.job import TrainJob
from pipeline.train.loop import initial_state
from pipeline.train.stop import Stop
from tests.support.training import MODEL, SETTINGS, write_encodings
from tld_model.encoders.vae import load_image_codec

DONE = ["metrics", "artifact", "metrics"]  # the held-out loss, the grid, the scores


@pytest.fixture
def checks(tmp_path: Path) -> HeldOutChecks:
    encodings = write_encodings(tmp_path / "encodings")
    config = TrainConfig(**SETTINGS, score={"every": 5, "prompts": 4, "best_by": "clip_score"})
    out = tmp_path / "03_model/made-up"  # of the workspace tmp_path
    out.mkdir(parents=True)
    job = TrainJob(encodings=encodings.folder, out=out, config=config, model=MODEL, device="cpu")
    pairs, split = open_dataset(encodings), split_pairs(encodings, config.held_out_fraction)
    codec, log = load_image_codec("shapes-vae", "cpu"), EventLog(out, 20, 8)
    inference = inference_on("cpu")
    return HeldOutChecks(job, ALONE, Stop(), log, encodings, pairs, split, codec, inference)


def event_kinds(checks: HeldOutChecks) -> list[str]:
    path = checks.job.out / EVENTS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [kind for line in lines if (kind := json.loads(line)["kind"]) != "progress"]


def test_a_stop_cuts_everything_short(checks: HeldOutChecks) -> None:
    state = initial_state(checks.job.config, MODEL, "cpu")
    state.step = 10
    checks.prepare(state)
    checks.stop.requested = True
    checks.run(state, list)
    assert event_kinds(checks) == []
    checks.stop.requested = False
    checks.run(state, list)
    assert event_kinds(checks) == DONE

    set_events_aside(checks.job.out)
    checks.log.resume_at(10)
    checks.run(state, list)
    assert event_kinds(checks) == DONE, "told again, not done again"


def test_each_check_has_its_own_steps(checks: HeldOutChecks) -> None:
    state = initial_state(checks.job.config, MODEL, "cpu")
    checks.prepare(state)
    for state.step in (3, 5):
        checks.run(state, list)
    assert event_kinds(checks) == ["metrics", "metrics"]
    (path,) = checks.job.checkpoints.iterdir()
    assert path.name == "best-00000005.safetensors"


def test_a_rank_that_does_not_lead_computes_nothing(checks: HeldOutChecks) -> None:
    state = initial_state(checks.job.config, MODEL, "cpu")
    state.step = 10
    checks.ranks = Ranks(rank=1, count=2)
    checks.prepare(state)
    checks.run(state, list)
    assert checks.finish([]) is None
    assert event_kinds(checks) == []
