"""Prefect's and MLflow's servers that hang: stopped, they accept connections and answer nothing."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.orchestration.prefect_server import free_port
from tests.support.command import is_running
from tests.support.faults import PREFECT, Tell, Victim, ended, parts
from tests.support.mlflow_server import loss_steps, mlflow_server


@contextmanager
def hung(pids: list[int]) -> Iterator[None]:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGCONT)


def test_prefect_server(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    victim.copy_from(undisturbed, "encode")
    process = victim.begin_until("encode")
    with hung(parts(process, PREFECT)):
        seen = ended(process)
    tell("Prefect server that hangs in encode", seen, "nothing: another is started after 20 s")
    seen.ended_with(0, "the Prefect server does not answer; continuing")
    assert "the Prefect server hung; restarting it" in seen.told
    assert victim.digests() == undisturbed.digests()


def test_mlflow_server(victim: Victim, undisturbed: Victim, tell: Tell, tmp_path: Path) -> None:
    """What it missed is sent by the next run, when it is back."""
    victim.copy_from(undisturbed, "train")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port) as server:
        process = victim.begin_until("train", MLFLOW_TRACKING_URI=address)
        with hung([server.pid, *parts(server, "mlflow")]):
            seen = ended(process)
        tell("MLflow server that hangs in train", seen, "a minute's wait at the end; no output")
        seen.ended_with(0, "MLflow is unreachable; continuing")
        assert victim.digests() == undisturbed.digests()
        victim.run("run", "--force", "evaluate", MLFLOW_TRACKING_URI=address).ended_with(0)
        assert loss_steps(address) == [2, 4, 6, 8, 10, 12]


def test_mlflow_server_from_the_start(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = victim.run(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}")
    tell("MLflow server that hangs from the start", seen, "nothing: no work has begun")
    seen.ended_with(2, "no MLflow answers at MLFLOW_TRACKING_URI=http://127.0.0.1:")
    assert [path.name for path in victim.root.iterdir()] == ["mlflow.lock"]
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()
