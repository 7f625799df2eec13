"""The whole line as a user runs it: what is computed, what is not computed again, what a kill
costs."""

from __future__ import annotations

import json
import platform
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.support.command import CANARY, snapshot, tld
from tests.support.documents import python_with
from tests.support.small import TINY, small
from tests.support.waiting import kill_when

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run, and what it printed."""
    root = tmp_path_factory.mktemp("run") / "data"
    done = tld("run", TINY, *small(root))
    assert done.returncode == 0, done.stderr
    assert "prompt_accuracy" in done.stdout
    assert "report.html" in done.stdout
    assert "Try next:" in done.stdout
    assert "# longer, from step 0: the cosine of the learning rate" in done.stdout
    assert CANARY not in done.stdout + done.stderr
    return root


def states(root: Path, **changed: object) -> dict[str, str]:
    done = tld("status", TINY, *small(root, **changed), "--json")
    return {row["stage"]: row["state"] for row in json.loads(done.stdout)}


def manifest(root: Path, stage_folder: str) -> dict[str, Any]:
    (path,) = (root / stage_folder).glob("*/manifest.json")
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def test_everything_lies_where_the_readme_says(finished: Path) -> None:
    (report,) = (finished / "04_report").glob("*")
    assert {"grid.png", "metrics.json", "report.html", "manifest.json"} <= {
        path.name for path in report.iterdir()
    }
    page = (report / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    (model,) = (finished / "03_model").glob("*/denoiser.safetensors")
    assert model.stat().st_size > 0


def test_the_model_in_mlflow_names_its_python(finished: Path) -> None:
    (described,) = finished.rglob("MLmodel")
    assert f"python_version: {platform.python_version()}" in described.read_text()


def test_no_secret_of_the_environment_is_in_any_file(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert {"mlflow.db", "prefect.db", "report.html", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


def test_the_encodings_open_as_the_documentation_shows(finished: Path) -> None:
    code = python_with("02_encodings")
    (folder,) = (finished / "02_encodings").iterdir()
    names: dict[str, Any] = {}
    with warnings.catch_warnings(
        action="ignore"
    ):  # the snippet leaves a file to the garbage collector
        exec(code.replace("data/02_encodings/…", str(folder)), names)
    assert names["latents"].shape == (len(names["rows"]), 4, 8, 8)
    assert abs(names["latents"].std() - 1) < 0.3


def test_a_second_run_computes_and_changes_nothing(finished: Path) -> None:
    before = snapshot(finished)
    again = tld("run", TINY, *small(finished))
    assert again.returncode == 0
    assert again.stdout.count("fresh:") == 4
    assert snapshot(finished) == before


def test_a_setting_makes_stale_what_depends_on_it_and_nothing_else(finished: Path) -> None:
    fresh = dict.fromkeys(("download", "encode", "train", "evaluate"), "fresh")
    assert states(finished) == fresh
    assert states(finished, train__lr=2e-3) == {**fresh, "train": "stale", "evaluate": "stale"}
    assert states(finished, evaluate__guidance=3) == {**fresh, "evaluate": "stale"}
    assert states(finished, train__log_every=3, encode__batch_size=7, download__threads=2) == fresh


def test_forcing_encode_rewrites_identical_bytes_and_leaves_train_fresh(finished: Path) -> None:
    shards = sorted((finished / "02_encodings").glob("*/0*"))
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in shards
        if path.suffix != ".json"
    }
    done = tld("encode", TINY, *small(finished), "--force")
    assert done.returncode == 0, done.stderr
    for path, (content, written_at) in before.items():
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns > written_at
    assert states(finished)["train"] == "fresh"


def test_one_setting_reruns_train_and_evaluate_and_back_again_nothing(finished: Path) -> None:
    done = tld("run", TINY, *small(finished, train__lr=2e-3))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("fresh:") == 2
    assert len(list((finished / "03_model").glob("*/manifest.json"))) == 2
    assert len(list((finished / "02_encodings").glob("*/manifest.json"))) == 1
    assert set(states(finished).values()) == {"fresh"}


def test_mlflow_holds_a_child_run_a_stage_with_params_metrics_artifacts_and_lineage(
    finished: Path,
) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    parent = next(run for run in runs if run.data.tags["tld.stage"] == "pipeline")
    children = [
        run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert [run.data.tags["tld.stage"] for run in children] == [
        "download",
        "encode",
        "train",
        "evaluate",
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    download, encode, train, evaluate = children
    assert train.data.params["train.lr"] == "0.001"
    assert train.data.params["model.width"] == "64"
    assert train.data.tags["tld.input.encode"] == encode.info.run_id
    assert encode.data.tags["tld.input.download"] == download.info.run_id
    assert [m.step for m in client.get_metric_history(train.info.run_id, "loss")] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]
    assert [m.step for m in client.get_metric_history(train.info.run_id, "held_out_loss")] == [
        6,
        12,
    ]
    assert "clip_score" in evaluate.data.metrics
    assert "prompt_accuracy" in parent.data.metrics
    assert parent.data.params["train.steps"] == "12"
    assert parent.data.tags["tld.command"].startswith(f"tld run {TINY} root={finished} ")
    assert {"grid.png", "report.html"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    samples = [file.path for file in client.list_artifacts(train.info.run_id, "images")]
    assert {path.split("+timestamp")[0] for path in samples} == {
        *("images/samples+step+6", "images/samples+step+12")
    }
    assert {"grid.png", "report.html", "manifest.json"} <= {
        f.path for f in client.list_artifacts(evaluate.info.run_id)
    }
    assert train.inputs
    assert train.inputs.dataset_inputs[0].dataset.name == "encodings"


def test_the_model_is_in_mlflow(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    logged = client.search_logged_models([experiment.experiment_id])
    assert {model.status.value for model in logged} == {"READY"}
    assert not client.search_registered_models(), "without a demand there is no gate"


def test_samples_follow_the_seed(finished: Path, tmp_path: Path) -> None:
    prompt = "a large green circle in the center on a white background"
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        out = tmp_path / f"{name}.png"
        done = tld(
            "sample",
            TINY,
            prompt,
            *small(finished),
            "--count",
            "4",
            "--seed",
            str(seed),
            "--out",
            out,
        )
        assert done.returncode == 0, done.stderr
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pixels = []
    for path in paths:  # the files tell their seeds, so they differ anyway
        with Image.open(path) as image:
            pixels.append(image.tobytes())
    assert pixels[0] == pixels[1] != pixels[2]


def test_a_demand_that_is_missed_fails_the_stage_with_the_figures(finished: Path) -> None:
    done = tld("evaluate", TINY, *small(finished), "evaluate.require={prompt_accuracy: 0.99}")
    assert done.returncode == 1
    assert "prompt_accuracy is 0" in done.stderr
    assert "at least 0.99 is required" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_crash_of_training_is_one_failed_stage_and_its_checkpoint_is_kept(finished: Path) -> None:
    done = tld(
        "run", TINY, *small(finished, train__lr=1e30, train__clip_norm=1e30, train__steps=40)
    )
    assert done.returncode == 1
    assert "train: the training process failed" in done.stderr
    assert "lower train.lr" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kill_anywhere_costs_no_finished_shard_and_no_bit_of_the_weights(
    finished: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    arguments: list[str | Path] = [
        "run",
        TINY,
        *small(root, download__workers=1, train__checkpoint_every=2),
    ]

    def receipts(folder: str) -> list[Path]:
        return list(root.glob(f"{folder}/*/0*_stats.json"))

    def has_one_receipt(folder: str) -> bool:
        return len(receipts(folder)) == 1

    kept: dict[str, tuple[int, int]] = {}
    for folder in ("01_images", "02_encodings"):
        kill_when(partial(has_one_receipt, folder), *arguments)
        assert not list(root.glob(f"{folder}/*/manifest.json"))
        shard = receipts(folder)[0].name.removesuffix("_stats.json")
        files = list(root.glob(f"{folder}/*/{shard}.*"))
        assert files
        kept |= {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}
    kill_when(lambda: bool(list(root.glob("03_model/*/checkpoints/step-*.pt"))), *arguments)
    assert not list(root.glob("03_model/*/manifest.json"))

    done = tld(*arguments)
    assert done.returncode == 0, done.stderr
    after = snapshot(root)
    assert {path: after[path] for path in kept} == kept
    assert manifest(root, "01_images")["digest"] == manifest(finished, "01_images")["digest"]
    digest = manifest(root, "03_model")["digest"]
    (whole,) = (
        told["digest"]
        for path in (finished / "03_model").glob("*/manifest.json")
        if (told := json.loads(path.read_text()))["settings"]["lr"] == 1e-3
    )
    assert digest == whole

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}, "no run is left RUNNING"
    trained = max(
        (run for run in runs if run.data.tags["tld.stage"] == "train"),
        key=lambda run: run.info.start_time,
    )
    steps = [metric.step for metric in client.get_metric_history(trained.info.run_id, "loss")]
    assert steps == [2, 4, 6, 8, 10, 12], "the resumed run tells the whole curve"
