"""kill -9 of each process that a run consists of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.orchestration.prefect_server import free_port
from tests.support.faults import (
    DECODER,
    PREFECT,
    TRAINING,
    UNFINISHED,
    WORKER,
    Tell,
    Victim,
    assert_kept,
    ended,
    kill,
    kill_driver,
)
from tests.support.mlflow_server import kill as kill_server
from tests.support.mlflow_server import loss_steps, mlflow_server


def first_step(victim: Victim) -> int:
    """The first step of which the last training process told."""
    (events,) = victim.root.glob("03_model/*/events.jsonl")
    told = map(json.loads, events.read_text().splitlines())
    return next(int(event["done"]) for event in told if event["kind"] == "progress")


def test_prefect_server(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    victim.copy_from(undisturbed, "encode")
    process = victim.begin_until("encode")
    kept = victim.finished()
    kill(process, PREFECT)
    seen = ended(process)
    tell("kill -9 of the Prefect server in encode", seen, "nothing: it is started again")
    seen.ended_with(0, "the Prefect server ended with exit code -9; restarting it")
    assert_kept(victim, kept)
    assert victim.digests() == undisturbed.digests()


def test_mlflow_server_that_stays_away(
    victim: Victim, undisturbed: Victim, tell: Tell, tmp_path: Path
) -> None:
    victim.copy_from(undisturbed, "evaluate")
    port = free_port()
    with mlflow_server(tmp_path, port) as server:
        process = victim.begin_until("evaluate", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
        kill_server(server)
        seen = ended(process)
    tell(
        "kill -9 of the MLflow server, which stays away",
        seen,
        "a minute's wait at the end; no output",
    )
    seen.ended_with(0, "MLflow did not come back")
    assert victim.digests() == undisturbed.digests()


def test_mlflow_server_that_comes_back(
    victim: Victim, undisturbed: Victim, tell: Tell, tmp_path: Path
) -> None:
    victim.copy_from(undisturbed, "train")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port) as server:
        process = victim.begin_until("train", MLFLOW_TRACKING_URI=address)
        kill_server(server)
    with mlflow_server(tmp_path, port):
        seen = ended(process)
        steps = loss_steps(address)
    tell(
        "kill -9 of the MLflow server, which comes back",
        seen,
        "nothing, and MLflow has the whole curve",
    )
    seen.ended_with(0, "MLflow is unreachable; continuing")
    assert steps == [2, 4, 6, 8, 10, 12]
    assert victim.digests() == undisturbed.digests()


@pytest.mark.parametrize("stage", ["download", "encode"])
def test_worker(victim: Victim, undisturbed: Victim, tell: Tell, stage: str) -> None:
    victim.copy_from(undisturbed, stage)
    process = victim.begin_until(stage)
    kept = victim.finished()
    kill(process, WORKER)
    seen = ended(process)
    tell(f"kill -9 of a worker in {stage}", seen, "the shard that it was at")
    seen.ended_with(0)
    assert_kept(victim, kept)
    assert victim.digests() == undisturbed.digests()


def test_process_that_decodes_pictures(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    """As the kernel does where memory runs out."""
    process = victim.begin_until("download")
    kept = victim.finished()
    kill(process, DECODER)
    seen = ended(process)
    tell(
        "kill -9 of a process that decodes pictures",
        seen,
        "nothing: its picture is decoded by another",
    )
    seen.ended_with(0)
    assert_kept(victim, kept)
    assert victim.digests() == undisturbed.digests()


@pytest.mark.parametrize("stage", list(UNFINISHED))
def test_driver(victim: Victim, undisturbed: Victim, tell: Tell, stage: str) -> None:
    victim.copy_from(undisturbed, stage)
    process = victim.begin_until(stage)
    kept = victim.finished()
    seen = kill_driver(process)
    tell(f"kill -9 of tld run in {stage}", seen, UNFINISHED[stage])
    seen.ended_with(-9)
    victim.run().ended_with(0)
    assert_kept(victim, kept)
    assert stage != "train" or first_step(victim) > 2
    assert victim.digests() == undisturbed.digests()


def test_training_process(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    victim.copy_from(undisturbed, "train")
    process = victim.begin_until("train")
    kill(process, TRAINING)
    seen = ended(process)
    tell("kill -9 of the training process", seen, UNFINISHED["train"])
    seen.ended_with(
        1, "train: the training process failed; it was killed: most likely out of memory"
    )
    assert "is kept: run the same command to resume" in seen.told
    victim.run().ended_with(0)
    assert first_step(victim) > 2
    assert victim.digests() == undisturbed.digests()
