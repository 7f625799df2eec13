"""MLflow goes away in the middle of a stage: the stage goes on, and what MLflow missed is told to it later."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.manifest import Manifest, write_manifest
from flows import tracking
from flows.outbox import Outbox
from flows.prefect_server import free_port
from flows.tracking import pipeline_run, tracking_uri
from pipeline.config import RunConfig, load_config
from tests.support.command import ENVIRONMENT, tld
from tests.support.manifests import encodings_manifest
from tests.support.small import TINY, small


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real tracking server, until it is killed or the block ends."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        give_up = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            assert time.monotonic() < give_up
            time.sleep(0.2)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def manifest(folder: Path) -> Manifest:
    """Of an output that lies in a folder."""
    made = encodings_manifest(folder, [3], {})
    write_manifest(made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(TINY, small(tmp_path / "data"))


def test_metrics_and_artifacts_of_an_outage_arrive_when_the_server_is_back(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    (tmp_path / "sample.png").write_bytes(b"a picture")
    with mlflow_server(tmp_path, port) as server, contextlib.ExitStack() as stack:
        run = stack.enter_context(pipeline_run(config))
        track = stack.enter_context(run.stage("train", config, {}))
        track.metrics({"loss": 1.0}, step=1)
        track.flush()
        kill(server)
        for step in range(2, 40):
            track.metrics({"loss": 1 / step}, step)
            track.flush()
        track.artifact(tmp_path / "sample.png", "samples")
        track.warning("look at this")
        stack.enter_context(mlflow_server(tmp_path, port))
        track.close()
        client = MlflowClient(f"http://127.0.0.1:{port}")
        history = client.get_metric_history(track.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1, 40))
        assert [file.path for file in client.list_artifacts(track.run_id, "samples")] == ["samples/sample.png"]
        assert client.get_run(track.run_id).data.tags["tld.warning"] == "look at this"
    told = capsys.readouterr().err
    assert told.count("MLflow does not answer; the work goes on") == 1
    assert told.count("MLflow is back") == 1


def test_a_server_that_stays_away_costs_its_records_and_no_stage(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.5)
    with (
        mlflow_server(tmp_path, port) as server,
        pipeline_run(config) as run,
        run.stage("train", config, {}) as track,
    ):
        kill(server)
        track.metrics({"loss": 1.0}, step=1)
        run.finished(track, manifest(tmp_path))
        run.log_model(track, config, manifest(tmp_path), manifest(tmp_path))
    assert "MLflow did not come back: 3 messages to it are lost, no output is" in capsys.readouterr().err


def test_a_server_that_was_never_there_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_TRACKING_URI", f"http://me:canary@127.0.0.1:{free_port()}")
    done = tld("run", TINY, *small(tmp_path / "data"))
    assert done.returncode == 2, done.stderr
    assert "no MLflow answers at MLFLOW_TRACKING_URI=http://127.0.0.1:" in done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_the_address_moves_to_where_no_error_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pa%20ss@host:5000/path")
    assert tracking_uri(Path()) == os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/path"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "pa ss")


def test_an_error_that_is_no_outage_is_not_kept() -> None:
    def wrong() -> None:
        raise ValueError("not an outage")

    with pytest.raises(ValueError, match="not an outage"):
        Outbox(lambda _: None).put(wrong)
