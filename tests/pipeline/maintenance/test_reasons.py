"""Why the stages of a run are not fresh."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from data_catalog.model_files import EVENTS_FILE, TRUNK_FILE
from data_catalog.storage.digests import file_records
from data_catalog.storage.receipts import MANIFEST_NAME, Shard
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.maintenance.reasons import StageReason, stage_reasons
from pipeline.stages.contract import Output
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.trunk import trunk_of
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, output, overrides


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and one with another learning rate and seed."""
    root = tmp_path_factory.mktemp("reasons") / "data"
    make_workspace(root)
    make_workspace(root, train__lr=5e-4, train__seed=1)
    return root


def config_of(root: Path, **changed: object) -> RunConfig:
    return load_config(TINY, overrides(root, **changed))


def reasons(root: Path, **changed: object) -> dict[str, StageReason]:
    every = stage_reasons(RunInputs(config_of(root, **changed)))
    return {reason.status.title: reason for reason in every}


def log_speed(folder: Path) -> None:
    speed = {"kind": "metrics", "step": 12, "values": {"images_per_s": 4.0}}
    (folder / EVENTS_FILE).write_text(json.dumps(speed) + "\n")


def make_report(config: RunConfig) -> None:
    def report(out: Path) -> Output:
        (out / "one").touch()
        files = file_records([out / "one"])
        return Output((Shard(name="one", rows=512, digest="", files=files),), {})

    parents = {stage: output(config, stage) for stage in ("encode", "train")}
    run_stage(RunInputs(config).stage_run("evaluate", parents), RememberingTracker(), report)


def changes(reason: StageReason) -> list[str]:
    return [str(change) for change in reason.changes]


def test_the_nearest_output_is_the_one_with_the_fewest_differences(root: Path) -> None:
    train = reasons(root, train__steps=30)["train"]
    assert train.nearest == output(config_of(root), "train")
    assert changes(train) == ["train.steps 12 -> 30"]

    train = reasons(root, train__steps=30, train__seed=1)["train"]
    assert changes(train) == ["train.steps 12 -> 30", "train.seed 0 -> 1"]
    train = reasons(root, train__lr=5e-4, train__seed=1, train__steps=30)["train"]
    assert train.nearest
    assert train.nearest.settings["seed"] == 1
    assert changes(train) == ["train.steps 12 -> 30"]


def test_a_fresh_stage_has_no_reason(root: Path) -> None:
    train = reasons(root)["train"]
    assert train.is_fresh
    assert not train.changes
    assert not train.waits_for


def test_a_stage_that_only_follows_another_says_so(root: Path) -> None:
    of_run = reasons(root, encode__latent_clip=6)
    assert changes(of_run["encode"]) == ["encode.latent_clip 7.0 -> 6.0"]
    assert of_run["train"].waits_for == ("encode",)
    assert not of_run["train"].changes
    assert of_run["train"].nearest == output(config_of(root), "train")
    assert of_run["evaluate"].waits_for == ("encode", "train")
    assert not of_run["evaluate"].nearest, "no report was ever made"


def test_another_input_is_named_with_its_folder(tmp_path: Path) -> None:
    """The images were made again with other content, and the encodings of them too."""
    root = tmp_path / "data"
    config = make_workspace(root)
    old, model = output(config, "encode"), output(config, "train")
    shutil.rmtree(output(config, "download").folder)
    for name in ("02_encodings", "03_model"):
        shutil.move(root / name, tmp_path / name)
    new = output(make_workspace(root, (24, 12)), "encode")
    shutil.rmtree(root / "03_model")
    for manifest in (old, model):
        shutil.move(tmp_path / manifest.folder.parent.name / manifest.folder.name, manifest.folder)
    train = reasons(root)["train"]
    assert train.nearest
    assert train.nearest.folder == model.folder
    assert changes(train) == [f"encodings 02_encodings/{old.folder.name} -> "
                              f"02_encodings/{new.folder.name}"]  # fmt: skip


def test_an_output_of_an_earlier_version_of_its_stage_says_so(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data")
    folder = output(config, "train").folder
    recorded = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**recorded, "version": 0}))
    folder.rename(folder.with_name("0123456789ab"))
    assert changes(reasons(tmp_path / "data")["train"]) == ["version of train 0 -> 1"]


def test_an_interrupted_training_says_where_it_resumes(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data")
    folder = output(config, "train").folder
    (folder / MANIFEST_NAME).unlink()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/step-00000008.pt").touch()
    speed = {"kind": "metrics", "step": 8, "values": {"images_per_s": 4.0}}
    (folder / EVENTS_FILE).write_text(json.dumps(speed) + "\n")
    train = reasons(tmp_path / "data")["train"]
    assert train.status.state == "interrupted"
    assert train.done_steps == 8
    assert train.cost.seconds == (12 - 8) * 16 / 4
    assert reasons(tmp_path / "data")["evaluate"].waits_for == ("train",)


def test_the_time_of_a_training_follows_from_the_speed_of_the_nearest(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data")
    log_speed(output(config, "train").folder)
    assert reasons(tmp_path / "data", train__steps=30)["train"].cost.seconds == 30 * 16 / 4
    assert reasons(tmp_path / "data", model__layers=2)["train"].cost.seconds is None


def test_the_time_of_other_inputs_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """The other inputs are finished: only their settings say that they are unlike."""
    config = make_workspace(tmp_path / "data", model__layers=1)
    for one in (config, make_workspace(tmp_path / "data", model__layers=2)):
        log_speed(output(one, "train").folder)
    make_report(config)
    same = reasons(tmp_path / "data", model__layers=1, evaluate__seed=3)["evaluate"]
    assert same.cost.seconds is not None
    assert reasons(tmp_path / "data", model__layers=2)["evaluate"].cost.seconds is None


def test_a_longer_training_that_continues_takes_the_steps_that_are_left(tmp_path: Path) -> None:
    constant = {"train__lr_schedule": "constant", "train__decay_steps": 2}
    config = make_workspace(tmp_path / "data", **constant)
    model = output(config, "train")
    trunk = trunk_of(RunInputs(config).stage_run("train", {"encode": output(config, "encode")}))
    assert trunk
    (model.folder / TRUNK_FILE).write_text(trunk.model_dump_json())
    (model.folder / "checkpoints").mkdir()
    (model.folder / "checkpoints/step-00000010.pt").touch()
    speed = {"kind": "metrics", "step": 12, "values": {"images_per_s": 4.0}}
    (model.folder / EVENTS_FILE).write_text(json.dumps(speed) + "\n")

    longer = {**constant, "train__steps": 30}
    train = reasons(tmp_path / "data", **longer)["train"]
    assert train.begins_with == model.folder / "checkpoints/step-00000010.pt"
    assert train.cost.seconds == (30 - 10) * 16 / 4
    every = stage_reasons(RunInputs(config_of(tmp_path / "data", **longer)), ("train",))
    (forced,) = [reason for reason in every if reason.status.stage == "train"]
    assert forced.cost.seconds == 30 * 16 / 4, "which begins at its start"
    of_new_encodings = reasons(tmp_path / "data", **longer, encode__latent_clip=6)["train"]
    assert of_new_encodings.begins_with is None


def test_what_a_phase_shares_with_the_one_before_is_marked(root: Path) -> None:
    of_run = reasons(root, **{"phases.more.train.steps": 7, "encode.latent_clip": 6})
    shared = [title for title, reason in of_run.items() if reason.is_shared]
    assert shared == ["download more", "encode more"]


def test_phases_and_the_distilled_model_have_reasons_too(root: Path) -> None:
    of_run = reasons(root, **{"phases.more.train.steps": 7, "distill.sample_steps": 2})
    assert list(of_run) == [
        *("download first", "encode first", "train first"),
        *("download more", "encode more", "train more", "evaluate more", "distill more"),
        "evaluate distilled more",
    ]
    assert of_run["train first"].is_fresh
    more = of_run["train more"]
    assert more.nearest
    assert "train.steps 12 -> 7" in changes(more)
    assert of_run["evaluate distilled more"].waits_for == ("distill more",)
