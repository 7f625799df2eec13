"""The finished runs of a workspace, and what tells runs of one name apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from data_catalog.storage.receipts import MANIFEST_NAME
from pipeline.maintenance.runs import FinishedRun, finished_runs
from tests.support.workspace import make_workspace, output


def age(folder: Path, made_at: str, **changed: str) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "made_at": made_at, **changed}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two models of one name, one of another, and encodings that were not trained on."""
    root = tmp_path / "data"
    age(output(make_workspace(root), "train").folder, "2026-01-01T10:00:00+00:00")
    second = make_workspace(root, train__lr=5e-4, model__layers=2)
    age(output(second, "train").folder, "2026-01-03T10:00:00+00:00")
    third = make_workspace(root, name="other", train__seed=3)
    age(output(third, "train").folder, "2026-01-02T10:00:00+00:00")
    return root


def names(runs: list[FinishedRun]) -> list[str]:
    return [run.last.name for run in runs]


def test_newest_first_with_the_settings_that_differ_between_runs_of_a_name(root: Path) -> None:
    runs = finished_runs(root)
    assert names(runs) == ["tiny", "other", "tiny"]
    assert [dict(run.differs) for run in runs] == [
        {"train.lr": "0.0005", "model.layers": "2"},
        {},
        {"train.lr": "0.001", "model.layers": "1"},
    ]


def test_a_run_has_all_outputs_of_its_lineage_and_their_size(root: Path) -> None:
    newest, *_ = finished_runs(root)
    assert [output.stage for output in newest.outputs] == ["download", "encode", "train"]
    assert newest.bytes == sum(
        path.stat().st_size
        for output in newest.outputs
        for path in output.folder.rglob("*")
        if path.is_file()
    )


def test_settings_of_a_stage_count_only_among_runs_that_have_it(root: Path) -> None:
    config = make_workspace(root, encode__latent_clip=6)
    model = output(config, "train")
    shutil.rmtree(model.folder)
    without_model = next(run for run in finished_runs(root) if run.last.stage == "encode")
    assert dict(without_model.differs) == {"encode.latent_clip": "6.0"}
    others = [run for run in finished_runs(root) if run.last.name == "tiny"]
    assert [run.differs.get("encode.latent_clip") for run in others].count("7.0") == 2


def test_the_phases_of_a_run_are_one_run(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for seed in (0, 1):
        make_workspace(root, **{"train.seed": seed, "phases.more.train.seed": 5})
    runs = finished_runs(root)
    assert all(len(run.outputs) == 4 for run in runs)
    differences = [dict(run.differs) for run in runs]
    assert sorted(one.pop("before: train.seed") for one in differences) == ["0", "1"]
    assert differences == [{}, {}]


def test_a_model_with_the_content_of_the_one_before_it_is_no_circle(tmp_path: Path) -> None:
    root = tmp_path / "data"
    config = make_workspace(root, **{"phases.more.train.steps": 7})
    first, last = output(config.chain[0], "train"), output(config, "train")
    assert first.digest == last.digest
    age(last.folder, "2030-01-01T10:00:00+00:00")
    assert all(len(run.outputs) <= 4 for run in finished_runs(root))


def test_an_output_whose_parents_are_gone_is_still_a_run(root: Path) -> None:
    shutil.rmtree(root / "02_encodings")
    assert {run.last.stage for run in finished_runs(root)} == {"train", "download"}
    assert all(len(run.outputs) == 1 for run in finished_runs(root))


def test_an_empty_folder_has_no_runs(tmp_path: Path) -> None:
    assert not finished_runs(tmp_path)
