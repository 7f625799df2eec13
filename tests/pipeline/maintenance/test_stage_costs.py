"""What a stage will take, by an output like its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_catalog.model_files import EVENTS_FILE
from data_catalog.storage.digests import FileRecord
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from pipeline.maintenance.stage_costs import (
    UNKNOWN,
    UNKNOWN_INPUT,
    StageCost,
    cost_like,
    cost_of,
    last_speed,
    rest_of_training,
)

TRAINING = {"steps": 100, "batch_size": 8}


def finished(folder: Path, stage: str, rows: int = 100, **settings: Any) -> Manifest:
    """An output of 2000 bytes that took 50 s."""
    record = FileRecord(bytes=2000, sha256="0" * 64)
    shard = Shard(name="one", rows=rows, digest="", files={"one": record})
    return Manifest(
        stage=stage,
        version=1,
        fingerprint="",
        digest="",
        rows=rows,
        shards=(shard,),
        figures={},
        settings=settings,
        parents={},
        made_by="",
        made_at="",
        seconds=50.0,
        folder=folder,
    )


def log_speeds(folder: Path, *speeds: float) -> None:
    events = [{"kind": "metrics", "values": {"images_per_s": speed}} for speed in speeds]
    (folder / EVENTS_FILE).write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_download_is_scaled_by_its_limit_and_not_beyond_the_rows_that_there_are(
    tmp_path: Path,
) -> None:
    images = finished(tmp_path, "download", limit=100)
    assert cost_of(images) == StageCost(100, 50.0, 2000)
    assert cost_like(images, {"limit": 400}, ["download.limit"], {}) == StageCost(400, 200.0, 8000)
    assert cost_like(images, {"limit": None}, ["download.limit"], {}) == UNKNOWN
    every = finished(tmp_path, "download", limit=None)
    assert cost_like(every, {"limit": 10}, ["download.limit"], {}).seconds == 5.0
    assert cost_like(every, {"limit": 1000}, ["download.limit"], {}).rows == 100


def test_another_table_says_nothing_and_another_size_only_the_rows(tmp_path: Path) -> None:
    images = finished(tmp_path, "download", limit=None)
    for change in ("download.urls", "content of download.urls", "download.images"):
        assert cost_like(images, images.settings, [change], {}) == UNKNOWN
    larger = cost_like(images, images.settings, ["download.image_size"], {})
    assert larger == StageCost(100)


def test_encodings_are_scaled_by_the_rows_of_their_images(tmp_path: Path) -> None:
    encodings = finished(tmp_path, "encode")
    images = {"download": StageCost(rows=300, seconds=1.0, bytes=1)}
    assert cost_like(encodings, {}, ["encode.latent_clip"], images) == StageCost(300, 150.0, 6000)
    assert cost_like(encodings, {}, ["encode.text"], images) == StageCost(300)
    assert cost_like(encodings, {}, ["encode.vae"], images) == StageCost(300)
    assert cost_like(encodings, {}, ["encode.latent_dtype"], images) == StageCost(300, 150.0)
    assert cost_like(encodings, {}, ["download.image_size"], images) == StageCost(300)
    assert cost_like(encodings, {}, [UNKNOWN_INPUT], images).seconds is None
    of_unknown_size = {"download": StageCost(rows=300, seconds=1.0)}
    assert cost_like(encodings, {}, [], of_unknown_size).bytes is None
    assert cost_like(encodings, {}, [], {"download": UNKNOWN}) == UNKNOWN


def test_a_report_is_scaled_by_its_prompts_and_needs_a_model_of_known_speed(tmp_path: Path) -> None:
    report = finished(tmp_path, "evaluate", prompts=100)
    model = StageCost(rows=1, seconds=9.0)
    inputs = {"encode": StageCost(rows=1, seconds=1.0, bytes=1), "train": model}
    assert cost_like(report, {"prompts": 50}, ["evaluate.prompts"], inputs).seconds == 25.0
    assert cost_like(report, {"prompts": 200}, ["evaluate.prompts"], inputs).rows == 200
    of_all_pairs = finished(tmp_path, "evaluate", prompts=500)
    assert cost_like(of_all_pairs, {"prompts": 800}, ["evaluate.prompts"], inputs).rows == 100
    for change in ("evaluate.steps", "evaluate.solver", "evaluate.features", "model.layers"):
        assert cost_like(report, {"prompts": 100}, [change], inputs).seconds is None
    inputs["train"] = StageCost(rows=1)
    assert cost_like(report, report.settings, [], inputs) == StageCost(100, None, 2000)


def test_a_training_takes_the_steps_that_are_left_and_the_start_of_the_nearest(
    tmp_path: Path,
) -> None:
    model = finished(tmp_path, "train", **TRAINING)
    log_speeds(tmp_path, 4.0, 20.0)
    longer = TRAINING | {"steps": 300}
    start = 50.0 - 100 * 8 / 20
    assert cost_like(model, longer, ["train.steps"], {}).seconds == 300 * 8 / 20 + start
    continued = cost_like(model, longer, ["train.steps"], {}, first_step=200)
    assert continued.seconds == 100 * 8 / 20 + start
    assert cost_like(model, longer, ["model.layers"], {}).seconds is None
    assert rest_of_training(longer, tmp_path, 299) == StageCost(seconds=8 / 20)


def test_a_training_fills_what_the_nearest_did_while_that_has_checkpoints(tmp_path: Path) -> None:
    model = finished(tmp_path, "train", **TRAINING)
    log_speeds(tmp_path, 20.0)
    assert cost_of(model).bytes is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/step-00000100.pt").write_bytes(bytes(5000))
    events = (tmp_path / EVENTS_FILE).stat().st_size
    assert cost_of(model).bytes == 5000 + events
    assert cost_like(model, TRAINING, ["train.ema_decay"], {}).bytes is None


@pytest.mark.parametrize("damage", ["", "{\n", "[]\n", '{"values": {"images_per_s": "x"}}\n'])
def test_the_last_speed_is_that_of_the_last_whole_event(tmp_path: Path, damage: str) -> None:
    assert last_speed(tmp_path) is None
    log_speeds(tmp_path, 4.0, 20.0)
    with (tmp_path / EVENTS_FILE).open("a") as log:
        log.write(damage)
    assert last_speed(tmp_path) == 20.0
    (tmp_path / EVENTS_FILE).write_text(damage)
    assert last_speed(tmp_path) is None
