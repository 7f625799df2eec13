"""How a report finds the one before it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from data_catalog.scores import SCORES
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.evaluate.earlier_report import EarlierReport, earlier_report
from pipeline.evaluate.stage import evaluate
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.stages.setting_changes import SettingChange
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, output


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports") / "data"


@pytest.fixture(scope="module")
def first(root: Path) -> Manifest:
    return report_of(make_workspace(root))


def report_of(config: RunConfig) -> Manifest:
    encodings, model = output(config, "encode"), output(config, "train")
    track = RememberingTracker(run_id="run-of-evaluate")
    work = partial(evaluate, encodings, model, config.evaluate, track=track)
    run = RunInputs(config).stage_run("evaluate", {"encode": encodings, "train": model})
    return run_stage(run, track, work)


def before(config: RunConfig, out: Path) -> EarlierReport | None:
    encodings, model = output(config, "encode"), output(config, "train")
    return earlier_report(encodings, model, config.evaluate, out)


def test_a_report_names_the_settings_that_differ_from_the_one_before(
    root: Path, first: Manifest
) -> None:
    config = make_workspace(root, train__lr=5e-4, model__layers=2, evaluate__guidance=3.0)

    earlier = before(config, root / "04_report" / "new")

    assert earlier
    assert earlier.made_at == first.made_at
    assert earlier.changes == (
        SettingChange("model.layers", "1", "2"),
        SettingChange("train.lr", "0.001", "0.0005"),
        SettingChange("evaluate.guidance", "2.0", "3.0"),
    )
    accuracy = SCORES["prompt_accuracy"]
    assert earlier.scores[accuracy] == first.figures["scores"]["prompt_accuracy"]
    page = report_of(config).file("report.html").read_text()
    assert "Since the report before" in page
    assert '<code>train.lr</code></td><td class="n">0.001</td>' in page


def test_the_first_report_has_none_before_it(root: Path, first: Manifest) -> None:
    config = make_workspace(root)

    assert "Since the report before" not in first.file("report.html").read_text()
    other_number = make_workspace(root, evaluate__prompts=5)
    assert before(other_number, root / "04_report" / "new") is None
    other_data = make_workspace(root, encode__latent_clip=6)
    assert before(other_data, root / "04_report" / "new") is None
    assert before(config, root / "04_report" / "new")


def test_a_report_whose_model_is_gone_is_passed_over(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data")
    report_of(config)
    new = make_workspace(tmp_path / "data", model__layers=2)
    out = tmp_path / "data" / "04_report" / "new"
    assert before(new, out)

    shutil.rmtree(output(config, "train").folder)

    assert before(new, out) is None
