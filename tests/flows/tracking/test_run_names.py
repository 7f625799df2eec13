"""Names of runs in a real record: they say what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from requests import RequestException

from flows.tracking.run_names import differing_settings, newest_run, run_title, settings_until
from flows.tracking.store import Store, open_store
from flows.tracking.tracker import pipeline_run
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.support.record import new_record
from tests.support.small import TINY


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return new_record(tmp_path / "data")


def run(root: Path, *overrides: str) -> str:
    """The name that a run with these settings gets, which has no stages."""
    config = settings(root, *overrides)
    with pipeline_run(config) as tracking:
        pass
    return str(tracking.store.client.get_run(tracking.run_id).info.run_name)


def settings(root: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [f"root={root}", *overrides])


def test_runs_of_a_shipped_config_say_what_differs_from_it(root: Path) -> None:
    assert run(root) == "tiny"
    assert run(root, "train.lr=2e-3", "encode.workers=3") == "tiny · train.lr=0.002"
    assert run(root) == "tiny"
    assert run(root, "train.lr=2e-3", "train.seed=1") == "tiny · train.lr=0.002 train.seed=1"


def test_what_all_earlier_runs_have_too_is_left_out(root: Path) -> None:
    taste = ("download.limit=120", "train.steps=12", "model.width=64", "model.layers=1")
    title = "tiny · download.limit=120 model.width=64 model.layers=1 and 1 more"
    assert run(root, *taste) == title
    assert run(root, *taste) == title, "a run that resumes has the name of the one before"
    assert run(root, *taste, "train.lr=2e-3") == "tiny · train.lr=0.002"
    assert run(root, *taste, "train.lr=1e-3") == "tiny · train.lr=0.001"
    assert run(root, *taste, "train.lr=1e-3") == "tiny · train.lr=0.001"


def test_runs_of_another_name_say_what_differs_from_the_first(root: Path) -> None:
    mine = ("name=mine", "train.lr=1e-2")
    assert run(root, *mine) == "mine"
    assert run(root, *mine, "train.steps=70") == "mine · train.steps=70"
    assert run(root, *mine) == "mine"
    assert run(root, "name=mine") == "mine · train.lr=0.005"


def test_runs_that_recorded_no_settings_do_not_count(root: Path) -> None:
    """Those of earlier versions."""
    store = open_store(settings(root, "name=mine"))
    tags = {"tld.stage": "pipeline"}
    store.client.create_run(store.experiment_id, tags=tags)
    assert run(root, "name=mine", "train.lr=1e-2") == "mine"


def test_a_stage_says_only_what_it_may_depend_on() -> None:
    changed = {"phase": "fine", "download.limit": "9", "phases.fine.train.lr": "0.002"}
    changed |= {"evaluate.steps": "4"}
    assert settings_until("encode", changed) == {"phase": "fine", "download.limit": "9"}
    assert [*settings_until("train", changed)][-1] == "phases.fine.train.lr"
    assert settings_until("evaluate", changed) == changed


def test_a_name_is_short() -> None:
    assert run_title("tiny", {}) == "tiny"
    assert run_title("tiny", {"a": "1", "b": "2", "c": "3"}) == "tiny · a=1 b=2 c=3"
    assert run_title("tiny", dict.fromkeys("abcde", "1")) == "tiny · a=1 b=1 c=1 and 2 more"
    assert len(run_title("tiny", {"encode.text_template": 500 * "x"})) < 80


def test_a_store_that_does_not_answer_leaves_the_name(root: Path) -> None:
    class Away:
        def search_runs(self, *_: object, **__: object) -> None:
            raise RequestException

    config = settings(root, "name=mine", "train.lr=1e-2")
    away = Store(Away(), "1", keeps_models=True, name="x")  # type: ignore[arg-type]
    assert differing_settings(config, away) == {}


def test_the_newest_run_is_that_with_the_settings(root: Path) -> None:
    for overrides in ((), ("train.lr=2e-3",), ("train.lr=2e-3",), ("train.lr=1e-3",)):
        run(root, *overrides)
    store = open_store(settings(root))

    def of(*overrides: str) -> str | None:
        run_id = newest_run(store.client, store.experiment_id, settings(root, *overrides))
        return run_id and str(store.client.get_run(run_id).info.run_name)

    assert of() == "tiny"
    assert of("train.lr=2e-3") == "tiny · train.lr=0.002"
    assert of("train.lr=2e-3", "download.workers=7") == "tiny · train.lr=0.002"
    assert of("train.lr=3e-3") is None
