"""MLflow's record of a workspace that was moved, copied or damaged, and of an experiment that was
deleted."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from data_catalog.model_files import MODEL_FILE
from flows.terminal.errors import UserError
from flows.tracking.local_store import sqlite_url
from flows.tracking.logged_model import DETAILS_FILE
from flows.tracking.open_runs import OpenRuns, end_abandoned
from flows.tracking.registry import registered_files
from flows.tracking.store import RecordUnusable, Store, open_client, open_store
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.support.small import TINY, small
from tld_model.config import SamplingSettings


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that what MLflow sets is undone at the end
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture(scope="module")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes seconds."""
    folder = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_client(folder)
    return folder / "mlflow.db"


@pytest.fixture
def config(tmp_path: Path, empty_record: Path) -> RunConfig:
    return at(tmp_path / "data", empty_record)


def at(root: Path, record: Path | None = None) -> RunConfig:
    """A run in a workspace, which has this record."""
    if record:
        root.mkdir(parents=True)
        shutil.copy(record, root / "mlflow.db")
    return load_config(TINY, small(json.dumps(str(root).replace("$", "$$"))))


def log(config: RunConfig, text: str) -> str:
    """A new run with an artifact; its id."""
    store = open_store(config)
    run_id = str(store.client.create_run(store.experiment_id).info.run_id)
    note = config.folder.parent / "note.txt"
    note.write_text(text)
    store.client.log_artifact(run_id, str(note), "notes")
    store.client.log_dict(run_id, {"a": 1}, "config.yaml")
    return run_id


def logged(root: Path, run_id: str) -> str:
    """What MLflow itself finds of a run's artifact."""
    uri = sqlite_url((root / "mlflow.db").resolve())
    return Path(
        download_artifacts(run_id=run_id, artifact_path="notes/note.txt", tracking_uri=uri)
    ).read_text()


def test_artifacts_follow_a_workspace_that_was_moved(config: RunConfig, tmp_path: Path) -> None:
    old, new = config.folder, tmp_path / "elsewhere" / "new"
    before = log(config, "before")
    new.parent.mkdir()
    old.rename(new)
    old.write_text("not a folder: whoever writes to the former place fails")
    after = log(at(new), "after")
    assert (logged(new, before), logged(new, after)) == ("before", "after")
    link = tmp_path / "link"
    link.symlink_to(new)
    assert logged(new, log(at(link), "through a link")) == "through a link"


def test_a_copy_leaves_its_original_alone(config: RunConfig, tmp_path: Path) -> None:
    before = log(config, "original")
    shutil.copytree(config.folder, tmp_path / "copy")
    files = {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()}
    after = log(at(tmp_path / "copy"), "in the copy")
    assert {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()} == files
    shutil.rmtree(config.folder)
    assert (logged(tmp_path / "copy", before), logged(tmp_path / "copy", after)) == (
        "original",
        "in the copy",
    )


def test_models_load_after_a_move(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(config)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("flavors: {}\n")
    (tmp_path / "model" / DETAILS_FILE).write_text(
        json.dumps(
            {
                "vae": "shapes-vae",
                "clip": "shapes-clip",
                "sampling": asdict(SamplingSettings(4, 2.0)),
            }
        )
    )
    (tmp_path / "model" / MODEL_FILE).write_bytes(b"weights")
    model = store.client.create_logged_model(store.experiment_id, name="denoiser")
    store.client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
    store.client.finalize_logged_model(model.model_id, "READY")
    store.client.create_registered_model("tiny")
    mlflow.set_tracking_uri(store.client.tracking_uri)
    store.client.create_model_version("tiny", f"models:/{model.model_id}", model_id=model.model_id)
    config.folder.rename(tmp_path / "new")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # a new process
    files = registered_files("models:/tiny/1", open_client(tmp_path / "new").tracking_uri)
    assert files.denoiser.parent.is_relative_to(tmp_path / "new")
    assert files.details.vae == "shapes-vae"


def test_artifacts_stay_below_a_workspace_that_another_sees_at_another_path(
    config: RunConfig, tmp_path: Path
) -> None:
    """A container and its host: each corrects the places in the one database to its own path."""
    store = open_store(config)
    elsewhere = (tmp_path / "elsewhere/mlartifacts").as_uri()
    with closing(sqlite3.connect(config.folder / "mlflow.db")) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'tiny'", [elsewhere]
        )
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_dict(run_id, {}, "config.yaml")
    assert (config.folder / "mlartifacts" / run_id / "artifacts/config.yaml").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_what_lies_elsewhere_by_choice_stays_there(config: RunConfig, tmp_path: Path) -> None:
    open_store(config).client.create_experiment("mine", artifact_location="s3://bucket/mlartifacts")
    config.folder.rename(tmp_path / "new")
    experiment = open_client(tmp_path / "new").get_experiment_by_name("mine")
    assert experiment
    assert experiment.artifact_location == "s3://bucket/mlartifacts"


@pytest.mark.parametrize(
    "name", ["a?b", "a b#c%20d", "[a]{b}*", "a;b&c=d:e", "'a\" \\", "$HOME", "é\n"]
)
def test_a_root_may_have_any_name(name: str, tmp_path: Path, empty_record: Path) -> None:
    root = tmp_path / name
    assert logged(root, log(at(root, empty_record), "here")) == "here"
    assert {path.name for path in tmp_path.iterdir()} == {name, "note.txt"}


def test_a_deleted_experiment_is_named_with_both_ways_out(config: RunConfig) -> None:
    store = open_store(config)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="was deleted in MLflow") as error:
        open_store(config)
    assert f"mlflow experiments restore --experiment-id {store.experiment_id}" in str(error.value)
    assert "name=" in str(error.value)
    store.client.restore_experiment(store.experiment_id)
    assert open_store(config).experiment_id == store.experiment_id


def execute(statement: str) -> Callable[[Path], object]:
    def change(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "malformed"),
        (lambda path: path.write_bytes(b"\x07" * 100_000), "not a database"),
        (lambda path: path.write_text("a note"), "not a database"),
        (
            execute("UPDATE alembic_version SET version_num = 'ffffffffffff'"),
            "another version of MLflow",
        ),
        (execute("DROP TABLE experiments"), "no such"),
    ],
)
def test_a_damaged_record_is_named_with_a_way_out(
    config: RunConfig, damage: Callable[[Path], object], words: str
) -> None:
    database = config.folder / "mlflow.db"
    damage(database)
    with pytest.raises(RecordUnusable, match=words) as error:
        open_store(config)
    assert f"mv {database} {database}.damaged" in str(error.value)
    database.rename(f"{database}.damaged")


def test_a_file_that_cannot_be_opened_is_told(config: RunConfig) -> None:
    (config.folder / "mlflow.db").unlink()
    (config.folder / "mlflow.db").mkdir()
    with pytest.raises(RecordUnusable, match="unable to open database file"):
        open_store(config)


@pytest.mark.parametrize(
    "uri",
    [
        "foo://x",
        "http://me:canary@[::1",
        "sqlite:////proc/nowhere/a.db",
        "mysql+nodriver://me:canary@h/x",
    ],
)
def test_a_store_that_cannot_be_used_is_the_users_mistake(
    uri: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLflow cannot use MLFLOW_TRACKING_URI=") as error:
        open_store(config)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("code", ["ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"])
def test_a_server_without_logged_models_is_known_before_any_work(
    code: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.tracking import store as mlflow_store

    class OldServer(MlflowClient):
        tracking_uri = "http://127.0.0.1:1"

        def search_logged_models(self, *_: object, **__: object) -> None:  # type: ignore[override]
            error = MlflowException("API request to endpoint failed with error code 404")
            error.error_code = code
            raise error

    old = OldServer(sqlite_url(config.folder / "mlflow.db"))
    monkeypatch.setattr(mlflow_store, "open_client", lambda _: old)
    assert not open_store(config).keeps_models


def test_runs_of_a_killed_process_are_ended_and_those_of_a_living_one_are_not(
    config: RunConfig,
) -> None:
    """By a lock: in containers every process has number 1."""
    store: Store = open_store(config)
    ids = [str(store.client.create_run(store.experiment_id).info.run_id) for _ in range(2)]
    alive, killed = OpenRuns(config.folder, store), OpenRuns(config.folder, store)
    alive.add(ids[0])
    killed.add(ids[1])
    killed._file.close()  # as a kill does
    end_abandoned(config.folder, store)
    assert [store.client.get_run(run_id).info.status for run_id in ids] == ["RUNNING", "KILLED"]
    alive.close()
    assert not list(config.folder.glob("mlflow-open-*"))
