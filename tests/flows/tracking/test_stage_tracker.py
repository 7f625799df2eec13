"""What a stage reports, in a real record."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
from tests.support.record import new_record
from tests.support.small import TINY, small


def test_samples_of_steps_are_images_with_a_slider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(TINY, small(new_record(tmp_path / "data")))
    Image.new("RGB", (32, 32)).save(tmp_path / "samples.png")
    with pipeline_run(config) as run, run.stage("train", config, {}) as track:
        for step in (6, 12):
            track.image(tmp_path / "samples.png", "samples", step)
    client = run.store.client
    images = [file.path for file in client.list_artifacts(track.run_id, "images")]
    assert {path.split("+timestamp")[0] for path in images} == {
        *("images/samples+step+6", "images/samples+step+12")
    }
    assert len(images) == 4, "each with its small copy"
    assert client.get_run(track.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_what_a_stage_shows_goes_to_the_log_of_its_flow_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, lines = load_config(TINY, small(new_record(tmp_path / "data"))), list[str]()
    with pipeline_run(config) as run, run.stage("train", config, {}, lines.append) as track:
        track.note("a note")
        track.warning("few pairs")
    assert lines == ["a note", "warning: few pairs"]
