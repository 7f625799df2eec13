"""What one process of a training does besides steps: how it begins, and what it says of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_catalog.model_files import EVENTS_FILE
from pipeline.compute.inference import inference_on
from pipeline.compute.ranks import ALONE
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import split_pairs
from pipeline.train import worker
from pipeline.train.checkpoints import CheckpointNotRead
from pipeline.train.events import EventLog, set_events_aside
from pipeline.train.held_out_checks import HeldOutChecks
from pipeline.train.job import TrainJob
from pipeline.train.stop import Stop
from pipeline.train.worker import Training
from tests.support.manifests import ENCODERS
from tests.support.training import MODEL, SETTINGS, write_encodings
from tld_model.encoders.vae import load_image_codec


@pytest.fixture
def training(tmp_path: Path) -> Training:
    encodings = write_encodings(tmp_path / "encodings")
    config = TrainConfig(**SETTINGS)
    job = TrainJob(
        encodings=encodings.folder, out=tmp_path, config=config, model=MODEL, device="cpu"
    )
    pairs, split = open_dataset(encodings), split_pairs(encodings, config.held_out_fraction)
    codec = load_image_codec("shapes-vae", "cpu")
    stop, log, inference = Stop(), EventLog(tmp_path, 20, 8), inference_on("cpu")
    checks = HeldOutChecks(job, ALONE, stop, log, encodings, pairs, split, codec, inference)
    to_train = TrainingPairs.alone(pairs, split.train)
    return Training(job, ALONE, "cpu", stop, log, ENCODERS, to_train, split, inference, checks)


def test_a_training_chooses_how_its_blocks_compute_together_with_its_ranks(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[object, ...]] = []
    monkeypatch.setattr(worker, "speed_up_blocks", lambda *asked: chosen.append(asked))
    state = training._begin()
    assert chosen == [(state.denoiser, training.job.config, "cpu", training.ranks, training.log)]


def test_a_continued_training_never_starts_at_zero_instead(training: Training) -> None:
    config = training.job.config.model_copy(update={"continue_from": Path("elsewhere")})
    job = training.job.model_copy(update={"config": config})
    training.job.checkpoints.mkdir()
    (training.job.checkpoints / "step-00000004.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointNotRead, match="continue_from=elsewhere again"):
        replace(training, job=job)._begin()


def test_a_story_survives_kills_torn_lines_and_steps_done_twice(tmp_path: Path) -> None:
    def write(*steps: int, note: float) -> None:
        for step in steps:
            EventLog(tmp_path, 20, 8).write(kind="metrics", step=step, values={"loss": note})

    def losses() -> list[tuple[int, float]]:
        events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
        return [(event["step"], event["values"]["loss"]) for event in events]

    write(2, 4, 6, note=1)
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('{"kind": "metrics", "step": 8, "values": {"loss": 1}')
    set_events_aside(tmp_path)
    set_events_aside(tmp_path)  # the process between them was killed before it told anything
    EventLog(tmp_path, 20, 8).resume_at(4)
    assert losses() == [(2, 1), (4, 1)]
    write(6, 8, note=2)
    set_events_aside(tmp_path)
    EventLog(tmp_path, 20, 8).resume_at(8)
    assert losses() == [(2, 1), (4, 1), (6, 2), (8, 2)]
