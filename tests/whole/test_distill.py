"""A run that distills its model: five stages, two reports, and commands that use either model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.command import snapshot, tld
from tests.support.small import TINY, small

pytestmark = pytest.mark.slow

DISTILL = ("distill.steps=4", "distill.sample_steps=2", "distill.teacher_steps=4")
OF_DISTILLED = (*DISTILL, "evaluate.model=distilled")
CAPTION = "a small red star in the top left on a blue background"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run that distills."""
    root = tmp_path_factory.mktemp("run") / "data"
    done = tld("run", TINY, *small(root), *DISTILL)
    assert done.returncode == 0, done.stderr
    first, second = (
        done.stdout.index("trained, sampled in"),
        done.stdout.index("distilled, sampled"),
    )
    assert first < second
    assert "distilled, sampled in 2 steps:" in done.stdout
    assert done.stdout.count("report.html") == 2
    assert "held_out_loss" not in done.stdout[second:], "it says nothing of a distilled model"
    return root


def states(root: Path, *changes: str) -> dict[str, str]:
    done = tld("status", TINY, *small(root), *changes, "--json")
    return {row["stage"]: row["state"] for row in json.loads(done.stdout)}


def test_a_second_run_computes_and_changes_nothing(finished: Path) -> None:
    before = snapshot(finished)
    again = tld("run", TINY, *small(finished), *DISTILL)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("fresh:") == 6
    assert snapshot(finished) == before


def test_each_setting_makes_stale_what_depends_on_it(finished: Path) -> None:
    names = ("download", "encode", "train", "evaluate", "distill", "evaluate distilled")
    fresh = dict.fromkeys(names, "fresh")
    stale = {"distill": "stale", "evaluate distilled": "stale"}
    assert states(finished, *DISTILL) == fresh
    assert states(finished, *DISTILL, "distill.lr=1e-5") == fresh | stale
    assert states(finished, *DISTILL, "evaluate.guidance=3") == fresh | stale | {
        "evaluate": "stale"
    }
    required = "distill.require={latency_s: 1000}"
    assert states(finished, *DISTILL, required) == fresh | {"evaluate distilled": "stale"}
    assert states(finished) == dict.fromkeys(names[:4], "fresh")


def test_both_models_are_in_mlflow_each_with_its_sampling(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'pipeline'")
    metrics = runs[-1].data.metrics
    assert {"prompt_accuracy", "distilled/prompt_accuracy"} <= metrics.keys()
    models = client.search_logged_models([experiment.experiment_id])
    steps = {json.loads(model.tags["tld.sampling"])["steps"] for model in models}
    assert 2 in steps
    assert len(models) == 2
    (distilled,) = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'distill'")
    curve = client.get_metric_history(distilled.info.run_id, "teacher_error")
    assert curve[-1].step == 4


def test_commands_use_the_distilled_model_and_sample_as_it_does(
    finished: Path, tmp_path: Path
) -> None:
    (student,) = (finished / "05_distilled").glob("*/denoiser.safetensors")
    chosen = tmp_path / "chosen.png"
    named = tmp_path / "named.png"
    how = ("--count", "1", "--out")
    done = tld("sample", TINY, *small(finished), *OF_DISTILLED, CAPTION, *how, str(chosen))
    assert done.returncode == 0, done.stderr
    done = tld("sample", TINY, *small(finished), CAPTION, "--model", str(student), *how, str(named))
    assert done.returncode == 0, done.stderr
    recorded = [json.loads(_text(path)) for path in (chosen, named)]
    for one in recorded:
        request = one["request"]
        assert (request["steps"], request["guidance"], request["solver"]) == (2, 1.0, "euler")
    assert recorded[0]["origin"]["model"]["digest"] == recorded[1]["origin"]["model"]["digest"]


def test_the_card_of_an_export_names_the_teacher(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    done = tld("export", TINY, *small(finished), *OF_DISTILLED, "--out", str(out))
    assert done.returncode == 0, done.stderr
    card = (out / "README.md").read_text()
    assert "Distilled from the model of the stage `train` below" in card
    assert "num_inference_steps=2" in card
    assert card.count("| train |") == 1
    assert json.loads((out / "model_index.json").read_text())["sampling"]["steps"] == 2


def test_a_sweep_shows_both_models(finished: Path) -> None:
    words = ("--guidance", "2", "--steps", "2", "--prompts", "12")
    done = tld("sweep", TINY, *small(finished), *DISTILL, *words)
    assert done.returncode == 0, done.stderr
    (results,) = (finished / "sweeps").glob("*/sweep.json")
    assert json.loads(results.read_text())["distilled"]["steps"] == 2


def test_clean_keeps_both_models_and_their_reports(finished: Path) -> None:
    done = tld("clean", TINY, *small(finished), *DISTILL, "--other-settings")
    assert done.returncode == 0, done.stderr
    assert "04_report" not in done.stdout
    assert "05_distilled" in done.stdout, "the checkpoints of its finished training"
    without = tld("clean", TINY, *small(finished), "--other-settings")
    assert "this run has no stage distill" in without.stdout


def test_promote_gives_it_a_name_of_its_own(finished: Path) -> None:
    done = tld("promote", TINY, *small(finished), *OF_DISTILLED)
    assert done.returncode == 0, done.stderr
    assert "models:/tiny-distilled@champion is version 1 now" in done.stdout


def test_a_stage_that_a_run_lacks_is_told() -> None:
    for words in (("distill", TINY), ("run", TINY, "--until", "distill")):
        done = tld(*words)
        assert done.returncode == 2
        assert "this run has no section distill; set distill.sample_steps=4" in done.stderr


def _text(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        text: str = image.info["tld"]
    return text
