"""A run in phases as a user runs it: what each command does with them, and what a kill costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.support.command import snapshot, tld
from tests.support.small import TINY, small
from tests.support.waiting import kill_when

pytestmark = pytest.mark.slow

PHASES = (
    "phases.large.download={image_size: 128, min_image_size: 1}",
    "phases.large.model.latent_size=16",
    "phases.large.train.steps=3",
    "phases.fine.train={steps: 6, lr: 1e-4, checkpoint_every: 2}",
)
CAPTION = "a small red star in the top left on a blue background"


def words(root: Path, *more: str) -> list[str | Path]:
    return [TINY, *small(root), *PHASES, *more]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a run that was killed in the training of its last phase."""
    root = tmp_path_factory.mktemp("run") / "data"

    def last_phase_trains() -> bool:
        models = [path.parent for path in root.glob("03_model/*/manifest.json")]
        checkpoints = root.glob("03_model/*/checkpoints/step-*.pt")
        return len(models) == 2 and any(path.parents[1] not in models for path in checkpoints)

    kill_when(last_phase_trains, "run", *words(root))
    return root


@pytest.fixture(scope="module")
def finished(killed: Path) -> Path:
    """The same workspace after the same command again."""
    assert states(killed)["train fine"] == "interrupted"
    before = snapshot(killed / "01_images") | snapshot(killed / "02_encodings")
    done = tld("run", *words(killed))
    assert done.returncode == 0, done.stderr
    assert "phases.fine.train.steps=12" in done.stdout, "what to try next"
    for part in ("train first", "download large", "train large"):
        assert f"{part} fresh:" in done.stderr
    after = snapshot(killed / "01_images") | snapshot(killed / "02_encodings")
    assert {path: after[path] for path in before if not path.endswith(".lock")} == {
        path: state for path, state in before.items() if not path.endswith(".lock")
    }
    return killed


def states(root: Path, *more: str) -> dict[str, str]:
    done = tld("status", *words(root, *more), "--json")
    assert done.returncode == 0, done.stderr
    return {f"{row['stage']} {row['phase']}": row["state"] for row in json.loads(done.stdout)}


def models(root: Path) -> list[dict[str, Any]]:
    """The manifests of the trained models, in the order in which they were made."""
    told = [json.loads(path.read_text()) for path in root.glob("03_model/*/manifest.json")]
    return sorted(told, key=lambda manifest: str(manifest["made_at"]))


def test_a_second_run_computes_and_changes_nothing(finished: Path) -> None:
    before = snapshot(finished)
    again = tld("run", *words(finished))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("fresh:") == 10
    assert snapshot(finished) == before
    assert set(states(finished).values()) == {"fresh"}


def test_each_training_begins_with_the_one_before_it(finished: Path) -> None:
    first, large, fine = models(finished)
    assert "train" not in first["parents"]
    assert large["parents"]["train"] == first["digest"]
    assert fine["parents"]["train"] == large["digest"]
    assert [one["figures"]["steps"] for one in (first, large, fine)] == [12, 3, 6]
    assert len(list((finished / "02_encodings").glob("*/manifest.json"))) == 2, "one is shared"


def test_mlflow_and_prefect_tell_the_phases_apart(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tiny")
    trained = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'train'")
    made = {
        run.data.tags["tld.phase"]: run.data
        for run in trained
        if run.data.tags.get("tld.state") == "made"
    }
    assert made["fine"].params["train.steps"] == "12"
    assert made["fine"].params["phases.large.train.steps"] == "3"
    assert made["fine"].params["phases.fine.train.steps"] == "6"
    assert made.keys() == {"first", "large", "fine"}
    assert made["fine"].tags["mlflow.runName"].startswith("train fine · ")


def test_sample_takes_the_last_phase_or_the_one_that_is_named(
    finished: Path, tmp_path: Path
) -> None:
    first, _, fine = models(finished)
    for model, chosen in ((fine, ()), (first, ("phase=first",))):
        out = tmp_path / "sample.png"
        options = (CAPTION, "--count", "1", "--steps", "2", "--out", str(out))
        done = tld("sample", *words(finished, *chosen), *options)
        assert done.returncode == 0, done.stderr
        with Image.open(out) as image:
            recorded = json.loads(image.info["tld"])
        assert recorded["origin"]["model"]["digest"] == model["shards"][0]["digest"]


def test_a_stage_alone_is_that_of_the_last_phase(finished: Path) -> None:
    done = tld("train", *words(finished, "phases.large.train.lr=2e-3"))
    assert done.returncode == 2
    assert "the output of train large for these settings is stale" in done.stderr
    assert "phase=large --until train" in done.stderr


def test_a_change_of_the_last_phase_repeats_that_alone(finished: Path) -> None:
    before, change = len(models(finished)), "phases.fine.train.lr=2e-4"
    stale = {name for name, state in states(finished, change).items() if state == "stale"}
    assert stale == {"train fine", "evaluate fine"}
    done = tld("run", *words(finished, change), "--until", "train")
    assert done.returncode == 0, done.stderr
    assert len(models(finished)) == before + 1
