"""Runs that begin at the same moment on a workspace that is not there yet: one of them makes
MLflow's database. For whole runs see tests/chaos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.tracking.store import tracking_uri
from tests.support.command import ENVIRONMENT, REPOSITORY
from tests.support.small import TINY, small

pytestmark = pytest.mark.slow

RUNS = 2
_BEGIN = """
import pathlib, sys
from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
config = load_config(pathlib.Path(sys.argv[1]), sys.argv[2:])
print("ready", flush=True)
input()
with pipeline_run(config):
    print("under way", flush=True)
    input()
"""


def test_runs_that_begin_at_once_make_one_database(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BEGIN, str(TINY), *small(tmp_path / "data")]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(
            command, cwd=REPOSITORY, env=ENVIRONMENT, text=True, stdin=pipe, stdout=pipe
        )
        for _ in range(RUNS)
    ]
    try:
        for expected in ("ready", "under way"):
            for run in runs:
                assert run.stdout
                assert run.stdout.readline().strip() == expected
            for run in runs:
                assert run.stdin
                run.stdin.write("\n")
                run.stdin.flush()
        assert [run.wait(60) for run in runs] == [0] * RUNS
    finally:
        for run in runs:
            run.kill()
            run.communicate()
    client = MlflowClient(tracking_uri(tmp_path / "data"))
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    told = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in told] == ["FINISHED"] * RUNS
