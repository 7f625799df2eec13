"""What a run leaves in MLflow on its parent run, in a real record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from data_catalog.figures import ReportFigures
from data_catalog.storage.manifest import Manifest, write_manifest
from flows.tracking import tracker as tracking
from flows.tracking.delivery import deliver
from flows.tracking.messages import image_message
from flows.tracking.open_runs import OpenRuns
from flows.tracking.store import open_store
from flows.tracking.tracker import PipelineTracking, pipeline_run
from pipeline.config.command_line import remember_command
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.typed_settings import typed_settings
from tests.support.record import new_record
from tests.support.small import TINY, small


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_config(TINY, small(new_record(tmp_path / "data")))


def report(config: RunConfig, run_id: str, parents: Sequence[str] = ("train",)) -> Manifest:
    """A finished report that a run has made."""
    folder = config.folder / "04_report" / "abc"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32)).save(folder / "grid.png")
    (folder / "report.html").write_text("<title>A report</title>")
    figures = ReportFigures(scores={"clip_score": 90.0, "accuracy/shape": 0.5})
    manifest = Manifest(
        stage="evaluate",
        version=1,
        fingerprint="f",
        digest="d",
        rows=12,
        shards=(),
        figures=figures.model_dump(mode="json"),
        settings={},
        parents=dict.fromkeys(parents, "a digest"),
        made_by=run_id,
        made_at="",
        seconds=1,
        folder=folder,
    )
    write_manifest(manifest)
    return manifest


def parent_of(run: PipelineTracking) -> Run:
    return run.store.client.get_run(run.outbox.id_of(run.run_id))


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    return [file.path for file in client.list_artifacts(run_id, folder)]


def test_the_parent_has_all_settings_and_what_made_it(config: RunConfig) -> None:
    remember_command(["run", "tiny", "download.urls=https://me:canary@host/a.csv"])
    with pipeline_run(config) as run:
        pass
    data = parent_of(run).data
    assert data.params == typed_settings(config)
    assert data.params["train.steps"] == "12"
    assert data.params["evaluate.steps"] == "4"
    assert data.tags["tld.command"] == "tld run tiny download.urls=https://host/a.csv"
    assert data.tags["tld.version"].startswith("0.")
    assert data.tags["mlflow.source.name"] == "tld"
    assert "canary" not in str(data)


@pytest.mark.parametrize("fresh", [False, True])
def test_the_parent_has_scores_and_pages_once_whether_made_now_or_before(
    config: RunConfig, *, fresh: bool
) -> None:
    with pipeline_run(config) as run, run.stage("evaluate", config, {}) as track:
        run.finished(track, report(config, "an earlier run" if fresh else track.run_id))
    client, parent = run.store.client, parent_of(run)
    assert parent.data.metrics == {"clip_score": 90.0, "accuracy/shape": 0.5}
    assert len(client.get_metric_history(run.run_id, "clip_score")) == 1
    assert artifacts(client, run.run_id) == ["config.yaml", "grid.png", "report.html"]
    (name,) = {
        child.info.run_name
        for child in client.search_runs([run.store.experiment_id])
        if child.data.tags["tld.stage"] == "evaluate"
    }
    assert name.endswith(" (fresh)") is fresh


def test_a_distilled_model_has_scores_and_pages_of_its_own(config: RunConfig) -> None:
    with pipeline_run(config) as run:
        for parents in (("train",), ("distill",)):
            with run.stage("evaluate", config, {}) as track:
                run.finished(track, report(config, track.run_id, parents))
    client = run.store.client
    assert {"clip_score", "distilled/clip_score"} <= parent_of(run).data.metrics.keys()
    pages = artifacts(client, run.run_id, "distilled")
    assert pages == ["distilled/grid.png", "distilled/report.html"]


def test_an_image_that_is_sent_twice_is_stored_once(config: RunConfig, tmp_path: Path) -> None:
    """As after a kill between the delivery of a message and the removal of its file."""
    Image.new("RGB", (32, 32)).save(tmp_path / "samples.png")
    store = open_store(config)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    open_runs = OpenRuns(config.folder, store)
    for _ in range(2):
        for step in (1, 12):
            message = image_message(
                config.folder, run_id, tmp_path / "samples.png", "a/samples", step
            )
            deliver(store, config.folder, open_runs, message)
    open_runs.close()
    assert len(artifacts(store.client, run_id, "images")) == 4


def test_what_mlflow_missed_has_it_all_from_the_next_run(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run begins while MLflow is away, and stays so until its end."""

    def away(*_: object) -> None:
        raise ConnectionError("nobody listens")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_TIMEOUT_S", 0.1)
        patch.setattr(tracking, "deliver", away)
        patch.setattr("flows.tracking.run_lifecycle.Outbox.server_is_away", True, raising=False)
        with pipeline_run(config) as run, run.stage("evaluate", config, {}) as track:
            track.image(report(config, track.run_id).file("grid.png"), "samples", 6)
            run.finished(track, report(config, track.run_id))
    assert list(config.folder.glob("mlflow-outbox*"))
    for _ in range(2):
        with pipeline_run(config) as later:
            assert later.outbox.drain(60)
    client = later.store.client
    (parent,) = client.search_runs([later.store.experiment_id], f"tags.`tld.id` = '{run.run_id}'")
    (child,) = client.search_runs(
        [later.store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert parent.data.params == typed_settings(config)
    assert parent.data.metrics["clip_score"] == 90.0
    assert {"grid.png", "report.html"} < {*artifacts(client, parent.info.run_id)}
    assert len(artifacts(client, child.info.run_id, "images")) == 2
    assert not list(config.folder.glob("mlflow-outbox*"))
