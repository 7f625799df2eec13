"""MLflow goes away in the middle of a stage: the stage goes on, and what MLflow missed is told to
it later."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from data_catalog.storage.manifest import Manifest, write_manifest
from flows.orchestration.prefect_server import free_port
from flows.tracking import tracker as tracking
from flows.tracking.outbox import Message, Outbox
from flows.tracking.store import tracking_uri
from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.support.command import ENVIRONMENT, tld
from tests.support.manifests import encodings_manifest
from tests.support.mlflow_server import kill, mlflow_server
from tests.support.small import TINY, small
from tests.support.waiting import printed_until


def manifest(folder: Path) -> Manifest:
    """Of an output that lies in a folder."""
    output = encodings_manifest(folder, [3])
    write_manifest(output)
    return output


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(TINY, small(tmp_path / "data"))


@pytest.mark.slow
def test_metrics_and_artifacts_of_an_outage_arrive_when_the_server_is_back(
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    (tmp_path / "sample.png").write_bytes(b"a picture")
    with (
        contextlib.ExitStack() as servers,
        mlflow_server(tmp_path, port) as server,
        pipeline_run(config) as run,
        run.stage("train", config, {}) as track,
    ):
        track.metrics({"loss": 1.0}, step=1)
        assert run.outbox.drain(60)
        kill(server)
        for step in range(2, 40):
            track.metrics({"loss": 1 / step}, step)
        track.artifact(tmp_path / "sample.png", "samples")
        track.warning("look at this")
        output = printed_until(capsys, "MLflow is unreachable; continuing")
        servers.enter_context(mlflow_server(tmp_path, port))
        assert run.outbox.drain(60)
        client = MlflowClient(f"http://127.0.0.1:{port}")
        history = client.get_metric_history(track.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1, 40))
        assert [file.path for file in client.list_artifacts(track.run_id, "samples")] == [
            "samples/sample.png"
        ]
        assert client.get_run(track.run_id).data.tags["tld.warning"] == "look at this"
    output += capsys.readouterr().err
    assert output.count("MLflow is unreachable; continuing") == 1
    assert output.count("MLflow is back") == 1


@pytest.mark.slow
def test_what_a_server_that_stays_away_missed_is_told_to_it_by_the_next_run(
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(tracking, "_TIMEOUT_S", 0.5)
    with (
        mlflow_server(tmp_path, port) as server,
        pipeline_run(config) as run,
        run.stage("train", config, {}) as track,
    ):
        kill(server)
        track.metrics({"loss": 1.0}, step=1)
        run.finished(track, manifest(tmp_path))
        run.log_model(track, config, manifest(tmp_path), manifest(tmp_path))
    assert "MLflow did not come back: the next run sends it" in capsys.readouterr().err

    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with mlflow_server(tmp_path, port):
        with pipeline_run(config):
            """Nothing of its own."""
        client = MlflowClient(f"http://127.0.0.1:{port}")
        record = client.get_run(track.run_id)
        assert (record.info.status, record.data.metrics["loss"]) == ("FINISHED", 1.0)
        assert [file.path for file in client.list_artifacts(track.run_id)] == ["manifest.json"]
        assert client.get_run(run.run_id).info.status == "FINISHED"
    assert not list(config.folder.glob("mlflow-outbox*"))


def test_a_server_that_never_answers_holds_up_nobody(tmp_path: Path) -> None:
    """By the order of events: the caller has gone on before the first message was given up."""
    happened: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}")

        def deliver(message: Message) -> None:
            happened.append("sent")
            try:
                client.log_batch(message.run_id, tags=[RunTag("tld.kind", message.kind)])
            finally:
                happened.append("given up")

        outbox = Outbox(deliver, tmp_path / "kept", lambda _: None)
        for step in range(3):
            outbox.put(Message("a-run", "metrics", [["loss", 1.0, 0, step]]))
        asked, _ = silent.accept()
        with asked:
            outbox.put(Message("a-run", "tags", {"tld.state": "made"}))
            happened.append("the caller went on")
            outbox.close(timeout_s=0.0)
            happened.append("the run ended")
    assert happened[:3] == ["sent", "the caller went on", "the run ended"]

    again: list[Message] = []
    outbox = Outbox(again.append, tmp_path / "kept", lambda _: None)
    assert outbox.drain(60)
    outbox.close(0)
    assert [(message.kind, len(message.body)) for message in again] == [("metrics", 3), ("tags", 1)]


def test_a_kill_loses_nothing_that_an_earlier_run_had_kept(tmp_path: Path) -> None:
    """Of a run that had taken it up; while that one runs, it is its own. Process numbers say
    nothing: in containers every process has number 1."""
    names = ("kept", f"kept.{os.getpid()}", "kept.1")
    for number, name in enumerate(names):
        (tmp_path / name).write_text(
            json.dumps(asdict(Message("a-run", "tags", {"number": number})))
        )
    with (tmp_path / "kept.1").open() as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        sent: list[Message] = []
        outbox = Outbox(sent.append, tmp_path / "kept", lambda _: None)
        assert outbox.drain(60)
        assert len(list(tmp_path.iterdir())) == 3, "it is kept until the end"
        outbox.close(0)
        assert sorted(message.body["number"] for message in sent) == [0, 1]
        assert [path.name for path in tmp_path.iterdir()] == ["kept.1"], "another process sends it"
    outbox = Outbox(sent.append, tmp_path / "kept", lambda _: None)
    outbox.close(60)
    assert sent[-1].body["number"] == 2
    assert not list(tmp_path.iterdir())


def test_damage_to_what_was_kept_loses_a_line_and_stops_no_run(tmp_path: Path) -> None:
    whole = b'{"run_id": "a-run", "kind": "tags", "body": {}}\n'
    damaged = [
        whole.replace(b"a-run", b"a-\xf2un"),
        whole.replace(b'"kind"', b'"oind"'),
        whole[:9] + b"\n",
    ]
    (tmp_path / "kept").write_bytes(b"".join([*damaged, whole]))
    sent: list[Message] = []
    Outbox(sent.append, tmp_path / "kept", lambda _: None).close(60)
    assert sent[-1] == Message("a-run", "tags", {})
    assert {message.run_id for message in sent} == {"a-run", "a-\N{REPLACEMENT CHARACTER}un"}


def test_who_does_not_wait_for_the_end_loses_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the last attempts."""
    interrupted: list[bool] = []

    def deliver(_: Message) -> None:
        while not interrupted and not outbox._draining:
            time.sleep(0.001)
        if not interrupted:
            interrupted.append(True)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        raise ConnectionRefusedError

    outbox = Outbox(deliver, tmp_path / "kept", lambda _: None)
    outbox.put(Message("a-run", "end", ["FINISHED", 0]))
    with pytest.raises(KeyboardInterrupt):
        outbox.close(timeout_s=60)
    assert len((tmp_path / "kept").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_stage_begins_while_the_server_is_away_and_its_run_is_created_later(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the next process, and once alone."""
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(tracking, "_TIMEOUT_S", 0.5)
    with mlflow_server(tmp_path, port) as server, pipeline_run(config) as run:
        assert run.outbox.drain(60)
        kill(server)
        with run.stage("download", config, {}) as track:
            track.metrics({"loss": 1.0}, step=1)
    with mlflow_server(tmp_path, port):
        for _ in range(2):
            with pipeline_run(config) as again:
                assert again.outbox.drain(60)
        client = MlflowClient(f"http://127.0.0.1:{port}")
        (record,) = client.search_runs([run.store.experiment_id], "tags.`tld.stage` = 'download'")
    assert (record.info.status, record.data.metrics["loss"]) == ("FINISHED", 1.0)
    assert record.data.tags["mlflow.parentRunId"] == run.run_id
    assert record.data.params == {"download.limit": "120", "download.shard_size": "40"}


def test_a_cancelled_run_tells_its_last_metrics(config: RunConfig) -> None:
    def cancelled() -> None:
        with pipeline_run(config) as run, run.stage("train", config, {}) as track:
            track.metrics({"loss": 0.5}, step=7)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    client = MlflowClient(tracking_uri(config.folder))
    experiment = client.get_experiment_by_name(config.name)
    assert experiment
    record, parent = client.search_runs([experiment.experiment_id])
    assert record.info.status == parent.info.status == "KILLED"
    assert record.data.metrics["loss"] == 0.5
    assert record.data.metrics["system/system_memory_usage_megabytes"] > 0


@pytest.mark.slow
def test_a_server_that_was_never_there_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        ENVIRONMENT, "MLFLOW_TRACKING_URI", f"http://me:canary@127.0.0.1:{free_port()}"
    )
    done = tld("run", TINY, *small(tmp_path / "data"))
    assert done.returncode == 2, done.stderr
    assert "no MLflow answers at MLFLOW_TRACKING_URI=http://127.0.0.1:" in done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/prefect").exists(), "it is asked before anything is started"


def test_a_password_in_the_address_moves_to_where_no_error_tells_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pa%20ss@host:5000/path")
    assert tracking_uri(Path()) == os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/path"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == (
        "me",
        "pa ss",
    )


def test_what_mlflow_refuses_is_told_and_not_kept(tmp_path: Path) -> None:
    sent: list[str] = []
    printed: list[str] = []

    def deliver(message: Message) -> None:
        if message.kind == "tags":
            raise MlflowException("no such run")
        sent.append(message.kind)

    outbox = Outbox(deliver, tmp_path / "kept", printed.append)
    outbox.put(Message("a-run", "tags", {}))
    outbox.put(Message("a-run", "end", ["FINISHED", 0]))
    outbox.close(60)
    assert sent == ["end"]
    assert printed == ["warning: MLflow refuses tags of run a-run: no such run"]
    assert not (tmp_path / "kept").exists()
