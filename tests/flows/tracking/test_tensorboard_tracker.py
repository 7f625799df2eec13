"""Event files as TensorBoard reads them: one curve after a resume, and no run that ends by them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from data_catalog.image_formats import open_image
from flows.terminal.errors import UserError
from flows.tracking import tensorboard_tracker
from flows.tracking.tensorboard_tracker import TensorBoardTracker, check_tensorboard
from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Tracker
from tests.flows.tracking.test_tracker import report
from tests.support.command import ENVIRONMENT, REPOSITORY, command
from tests.support.record import new_record
from tests.support.small import TINY, small


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLD_TENSORBOARD", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def config_in(root: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [*small(root), *overrides])


def tracker(config: RunConfig, warnings: list[str] | None = None) -> TensorBoardTracker:
    warn = (warnings if warnings is not None else []).append
    return TensorBoardTracker(config, "train", "train · train.lr=0.002", warn)


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    return accumulator.Reload()


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def folders(root: Path) -> list[str]:
    return sorted(path.parent.name for path in (root / "tensorboard/tiny").glob("*/settings.json"))


def test_it_is_a_tracker_beside_that_of_mlflow(tmp_path: Path) -> None:
    config = config_in(new_record(tmp_path))
    grid = tmp_path / "step-00000006.png"
    Image.new("RGB", (32, 16), (200, 10, 60)).save(grid)
    with pipeline_run(config) as run, run.stage("train", config, {}) as track:
        track.metrics({"loss": 0.5, "held_out_loss": 0.75}, 6)
        track.image(grid, "samples", 6)
        track.warning("few pairs")
    logged = run.store.client.get_run(track.run_id)
    folder = tmp_path / "tensorboard/tiny" / logged.info.run_name
    events = read(folder)
    assert set(events.Tags()["scalars"]) == {"loss", "held_out_loss"}, "none of the machine"
    assert curve(folder, "loss") == [(6, 0.5)]
    assert logged.data.metrics["loss"] == 0.5
    (shown,) = events.Images("samples")
    assert (shown.step, shown.width, shown.height) == (6, 32, 16)
    png = tmp_path / "shown.png"
    png.write_bytes(shown.encoded_image_string)
    with open_image(png) as opened:
        assert np.asarray(opened)[0, 0].tolist() == [200, 10, 60]
    (warning,) = events.Tensors("warning/text_summary")
    assert warning.tensor_proto.string_val == [b"few pairs"]


def test_settings_are_parameters_with_types(tmp_path: Path) -> None:
    config = config_in(tmp_path, "train.lr=2e-3", "evaluate.prompts=99", "train.compile=false")
    tracker(config).metrics({"loss": 1.0}, 1)
    events = read(tmp_path / "tensorboard/tiny/train · train.lr=0.002")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    parameters = HParamsPluginData.FromString(content).session_start_info.hparams
    assert parameters["train.lr"].number_value == 0.002
    assert parameters["train.ema_warmup"].string_value == "true"
    assert parameters["encode.vae"].string_value == "shapes-vae"
    assert "evaluate.prompts" not in parameters, "training does not depend on it"
    assert "train.compile" not in parameters, "which changes speed only"


def test_a_resumed_stage_has_one_curve_without_doubled_points(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    first = tracker(config)
    for step in (2, 4, 6, 8):
        first.metrics({"loss": float(step)}, step)
    resumed = TensorBoardTracker(config, "train", "train · of another title", print)
    resumed.warning("few pairs")
    for step in (6, 8, 10):
        resumed.metrics({"loss": 100.0 + step}, step)
    assert folders(tmp_path) == ["train · train.lr=0.002"], "it is found by its settings"
    loss = curve(tmp_path / "tensorboard/tiny/train · train.lr=0.002", "loss")
    assert loss == [(2, 2), (4, 4), (6, 106), (8, 108), (10, 110)]
    events = read(tmp_path / "tensorboard/tiny/train · train.lr=0.002")
    assert [event.step for event in events.Tensors("warning/text_summary")] == [6]


def test_a_fresh_report_adds_no_scores(tmp_path: Path) -> None:
    config = config_in(new_record(tmp_path))
    with pipeline_run(config) as run, run.stage("evaluate", config, {}) as track:
        run.finished(track, report(config, "an earlier run"))
    assert run.store.client.get_run(track.run_id).data.metrics["clip_score"] == 90.0
    assert not (tmp_path / "tensorboard").exists(), "those of the run that made it are there"


def test_a_stage_from_the_start_replaces_its_curve(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    for value in (1.0, 2.0):
        again = tracker(config)
        again.metrics({"loss": value}, 2)
        again.metrics({"loss": value}, 4)
    loss = curve(tmp_path / "tensorboard/tiny/train · train.lr=0.002", "loss")
    assert loss == [(2, 2), (4, 2)]


def test_runs_of_one_title_and_other_settings_have_folders_of_their_own(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        tracker(config_in(tmp_path, f"train.seed={seed}")).metrics({"loss": float(seed)}, 1)
    title = "train · train.lr=0.002"
    assert folders(tmp_path) == [title, f"{title} (2)", f"{title} (3)"]
    assert curve(tmp_path / "tensorboard/tiny" / f"{title} (2)", "loss") == [(1, 2.0)]


@pytest.mark.parametrize("title", ["train · encode.vae=a/b", "train · x=\n", "ü" * 300, "é/" * 150])
def test_any_title_names_a_folder(tmp_path: Path, title: str) -> None:
    warnings: list[str] = []
    board = TensorBoardTracker(config_in(tmp_path), "train", title, warnings.append)
    board.metrics({"loss": 1.0}, 1)
    assert not warnings
    assert len(folders(tmp_path)) == 1


def test_a_stage_that_reports_nothing_has_no_folder(tmp_path: Path) -> None:
    config = config_in(new_record(tmp_path))
    with pipeline_run(config) as run, run.stage("train", config, {}) as track:
        track.note("fresh")
    assert not (tmp_path / "tensorboard").exists()


def test_it_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLD_TENSORBOARD")
    config = config_in(new_record(tmp_path))
    with pipeline_run(config) as run, run.stage("train", config, {}) as track:
        track.metrics({"loss": 0.5}, 6)
    assert not (tmp_path / "tensorboard").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_warning(small_disk: Path) -> None:
    warnings: list[str] = []
    board: Tracker = tracker(config_in(small_disk), warnings)
    for step in range(2000):
        board.metrics({"loss": 1.0, "a_metric_with_a_long_name": 2.0}, step)
    (warning,) = warnings
    assert "No space left on device" in warning
    assert "MLflow has all of it" in warning
    loss = curve(small_disk / "tensorboard/tiny/train · train.lr=0.002", "loss")
    assert len(loss) > 100, "what was written can be read"


def test_a_library_that_fails_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("Descriptors cannot be created directly")

    monkeypatch.setattr(tensorboard_tracker, "_append", fail)
    warnings: list[str] = []
    board = tracker(config_in(tmp_path), warnings)
    board.metrics({"loss": 1.0}, 1)
    board.image(tmp_path / "missing.png", "samples", 1)
    assert len(warnings) == 1
    assert "Descriptors cannot be created directly" in warnings[0]


def test_what_is_asked_for_and_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tensorboard()
    monkeypatch.setattr(tensorboard_tracker, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'tld-diffusion\[tensorboard\]'; or unset"):
        check_tensorboard()
    monkeypatch.delenv("TLD_TENSORBOARD")
    check_tensorboard()


@pytest.mark.slow
def test_a_run_has_a_curve_of_each_stage_and_a_second_one_adds_no_point(tmp_path: Path) -> None:
    root = tmp_path / "data"
    environment = {**ENVIRONMENT, "TLD_TENSORBOARD": "1", "CUDA_VISIBLE_DEVICES": ""}
    for _ in range(2):
        words = command("run", TINY, *small(root), "--force", "evaluate")
        done = subprocess.run(
            words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    by_stage = {name.partition(" ")[0]: root / "tensorboard/tiny" / name for name in folders(root)}
    assert by_stage.keys() == {"download", "encode", "train", "evaluate"}
    assert [step for step, _ in curve(by_stage["train"], "loss")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in read(by_stage["train"]).Images("samples")] == [6, 12]
    assert [step for step, _ in curve(by_stage["download"], "pictures")] == [1, 2, 3]
    assert [step for step, _ in curve(by_stage["evaluate"], "clip_score")] == [0]
