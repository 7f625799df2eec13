"""What a run prints at its end: the scores of each model, and what to try next."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.figures import ReportFigures
from data_catalog.storage.digests import file_records
from data_catalog.storage.receipts import Shard
from flows.cli.results import print_results
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Output
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, overrides

DISTILL = ("distill.sample_steps=2", "distill.teacher_steps=4")


def report(config: RunConfig, accuracy: float) -> None:
    """A finished report with this score."""
    inputs = RunInputs(config)
    parents = {name: one.manifest for name, one in stage_statuses(inputs).items() if one.manifest}

    def write(out: Path) -> Output:
        (out / "grid.png").write_bytes(b"a picture")
        figures = ReportFigures(scores={"prompt_accuracy": accuracy})
        shard = Shard(name="report", rows=12, digest="abc", files=file_records([out / "grid.png"]))
        return Output((shard,), figures.model_dump(mode="json"))

    run_stage(inputs.stage_run("evaluate", parents), RememberingTracker(), write)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The settings of a run whose model is evaluated."""
    root = tmp_path / "data"
    report(make_workspace(root), 0.75)
    return overrides(root)


def test_a_run_prints_its_scores_and_what_to_try(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(TINY, words, load_config(TINY, words))
    out = capsys.readouterr().out
    assert "prompt_accuracy  0.75" in out
    assert out.count("grid.png") == out.count("report.html") == 1
    assert "sampled in" not in out
    assert "Try next:\n  tld sample" in out
    assert "train.steps=24   # longer, from step 0: the cosine" in out


def test_a_constant_rate_lets_a_longer_training_go_on(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["train.lr_schedule=constant", "train.decay_steps=2"]
    print_results(TINY, words, load_config(TINY, words))
    assert "# longer, from the checkpoint of step 10" in capsys.readouterr().out


def test_a_run_that_distills_says_which_scores_are_whose(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words += DISTILL
    print_results(TINY, words, load_config(TINY, words))
    out = capsys.readouterr().out
    assert "trained, sampled in 4 steps:\n  prompt_accuracy  0.75" in out
    assert "distilled, sampled" not in out, "it has no report yet"


def test_a_longer_training_of_a_run_with_phases_is_that_of_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = {"phases.fine.train.steps": 7}
    config = make_workspace(tmp_path, **phase)
    print_results(TINY, overrides(tmp_path, **phase), config)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "phases.fine.train.steps=14   # longer" in last
    assert "fine.train.steps=7 " not in last
