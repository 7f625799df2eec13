"""The same command on two machines, which here are two process trees: one training, one output,
whoever is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.model_files import MODEL_FILE
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.job import TrainJob
from tests.support.command import REPOSITORY, descendants, is_running, start
from tests.support.small import TINY
from tests.support.waiting import wait_while_running
from tests.support.workspace import make_workspace, overrides

pytestmark = pytest.mark.slow

WAIT_S = 300


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A workspace with encodings, and a training for two nodes in it."""
    root = tmp_path_factory.mktemp("nodes") / "data"
    make_workspace(root)
    launch = {"train.launch.nodes": 2, "train.launch.rendezvous": f"127.0.0.1:{free_port()}"}
    rare = dict.fromkeys(
        ("train__checkpoint_every", "train__validate_every", "train__sample_every"), 60
    )
    return overrides(root, train__lr=2e-3, train__steps=60, train__device="cpu", **rare, **launch)


def run(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_led(config: RunConfig) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(config.train.launch.meeting_place) == 0


def under_torchrun(config: RunConfig, out: Path) -> subprocess.Popen[str]:
    """The training on one node: two processes that the real torchrun starts, by the former name of
    their module."""
    encodings = stage_statuses(RunInputs(config))["encode"].folder
    assert encodings
    out.mkdir()
    job = TrainJob(
        encodings=encodings, out=out, config=config.train, model=config.model, device="cpu"
    )
    (out / "job.json").write_text(job.model_dump_json())
    arguments = [
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "pipeline.train_rank",
        str(out / "job.json"),
    ]
    return run("torch.distributed.run", *arguments)


def test_a_killed_node_ends_the_other_and_the_same_commands_end_with_the_bytes_of_one_node(
    settings: list[str], tmp_path: Path
) -> None:
    config = load_config(TINY, settings)
    out = stage_statuses(RunInputs(config))["train"].folder
    assert out
    slowly = [*settings, "train.checkpoint_every=2"]
    leader = run("tests.support.node", *slowly)
    wait_while_running(lambda: is_led(config), leader)
    other = run("tests.support.node", *slowly)
    wait_while_running(lambda: list(out.glob("checkpoints/step-*.pt")), leader, other)
    ranks = [rank for node in (leader, other) for rank in descendants(node.pid)]
    assert len(ranks) == 2
    other.kill()
    told, _ = leader.communicate(timeout=WAIT_S)
    other.communicate()
    assert leader.returncode == 1
    assert "node 2 of 2 (" in told
    assert ") is gone: its command was killed, or its machine or network is down" in told
    assert "is kept: run the same command to resume." in told
    assert not (out / "manifest.json").exists()
    assert not any(is_running(rank) for rank in ranks)

    alone = under_torchrun(config, tmp_path / "alone")
    nodes = [
        start("train", TINY, *settings),
        start("train", TINY, *settings),
    ]  # at once: they agree which one leads
    said = [node.communicate(timeout=WAIT_S)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum("node 2 of 2; the node at 127.0.0.1" in words for words in said) == 1
    assert stage_statuses(RunInputs(config))["train"].state == "fresh"

    client = MlflowClient(f"sqlite:///{config.folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    trained = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'train'")
    assert len(trained) == 1, "one of the nodes reports"
    steps = [metric.step for metric in client.get_metric_history(trained[0].info.run_id, "loss")]
    assert steps == list(range(2, 61, 2)), "and tells the whole curve"

    told, _ = alone.communicate(timeout=WAIT_S)
    assert alone.returncode == 0, told
    assert (out / MODEL_FILE).read_bytes() == (tmp_path / "alone" / MODEL_FILE).read_bytes()
