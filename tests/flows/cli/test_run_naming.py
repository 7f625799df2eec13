"""Runs with a name: in lists, in MLflow, and as the config of other commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.storage.workspace import Workspace
from flows.cli.compare import compare
from flows.cli.download import download
from flows.cli.run_naming import check_name_of_run, name_run
from flows.cli.runs import runs
from flows.cli.stages import run
from flows.cli.status import status
from flows.terminal.errors import UserError
from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.maintenance.cleanup import find_unneeded
from tests.support.command import tld
from tests.support.small import TINY, small
from tests.support.workspace import make_workspace, output, overrides


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A trained run that has the name low-lr, in a workspace with another one."""
    monkeypatch.chdir(tmp_path)
    make_workspace("data")
    config = make_workspace("data", train__lr=5e-4)
    check_name_of_run("low-lr", config)
    typed = name_run("low-lr", TINY, overrides("data", train__lr=5e-4), config)
    assert typed == (Path("low-lr"), ())
    return config


@pytest.mark.usefixtures("named")
def test_lists_have_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    runs()
    _, _, header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["name", "run"]
    assert [row.split()[0] for row in rows if "train.lr=0.0005" in row] == ["low-lr"]
    assert [row.split()[0] for row in rows if "train.lr=0.001" in row] == ["tiny"]
    runs(as_json=True)
    names = {
        run["differs"]["train.lr"]: run["names"] for run in json.loads(capsys.readouterr().out)
    }
    assert names == {"0.0005": ["low-lr"], "0.001": []}


def test_other_commands_take_it_as_their_config(
    named: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    status(Path("low-lr"))
    assert str(output(named, "train").folder) in capsys.readouterr().out
    compare("data/runs/low-lr.yaml", "low-lr train.steps=13", settings=True)
    assert capsys.readouterr().out == "train.steps 12 -> 13\n"


def test_mlflow_calls_the_run_by_it(named: RunConfig) -> None:
    with pipeline_run(named) as run:
        assert run.name == "low-lr"
        (shown,) = run.store.client.search_runs([run.store.experiment_id])
        assert shown.info.run_name == "low-lr"


def test_cleaning_leaves_names_and_keeps_by_them(
    named: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, this_run = output(named, "train").folder, load_config(TINY, overrides("data"))
    listed = [file.path for file in find_unneeded([this_run], others=True)]
    assert folder in listed
    assert not [path for path in listed if "runs" in path.parts]
    both = [this_run, load_config(Path("low-lr"))]
    assert folder not in [file.path for file in find_unneeded(both, others=True)]
    shutil.rmtree(folder)
    runs()
    assert "low-lr" not in capsys.readouterr().out.partition("differs in")[2]


@pytest.mark.usefixtures("named")
def test_a_name_that_is_taken_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"train\.lr=0\.0005 \(here 0\.001\)"):
        check_name_of_run("low-lr", make_workspace("data"))
    root = Path.cwd() / "data"
    shutil.move(root / "runs/low-lr.yaml", root / "runs/lower.yaml")
    check_name_of_run("low-lr", make_workspace("data"))


@pytest.mark.parametrize("variable", ["TLD_TENSORBOARD", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_a_run_that_cannot_begin_takes_no_name_and_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for other in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.tracking.tensorboard_tracker.find_spec", lambda _: None)
    root = tmp_path / "data"
    with pytest.raises(UserError, match=variable):
        run(TINY, *small(root), name="short")
    with pytest.raises(UserError, match=variable):
        download(TINY, *small(root))
    workspace = Workspace(root)
    assert not [*workspace.runs.glob("*"), *workspace.logs.glob("*")]


@pytest.mark.slow
def test_a_run_with_a_name_is_sampled_by_it(tmp_path: Path) -> None:
    root, table = tmp_path / "data", tmp_path / "star.png"
    wrong = tld("run", TINY, *small(root), "--name", "a/b", "--until", "encode")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("tld: --name a/b: a name has up to 100 letters")
    assert not root.exists()
    done = tld("run", TINY, *small(root), "--name", "short")
    assert done.returncode == 0, done.stderr
    file = root / "runs/short.yaml"
    assert f"tld sample {file} " in done.stdout, "what to try next"
    again = tld("run", file, "--name", "short")
    assert again.returncode == 0, again.stderr
    assert "fresh" in again.stdout
    prompt = "a small red star in the center on a blue background"
    sampled = tld("sample", file, prompt, "--count", "1", "--steps", "2", "--out", table)
    assert sampled.returncode == 0, sampled.stderr
    assert table.exists()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    shown = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'pipeline'")
    assert [run.info.run_name for run in shown] == ["short"]
