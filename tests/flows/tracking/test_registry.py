"""From a met demand to a champion that others load, as a user types it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.tracking.registry import Registered, compare_with_champion, registered_files
from pipeline.generate.generator import load_generator
from tests.support.command import tld
from tests.support.small import TINY, small
from tld_model.config import SamplingSettings

pytestmark = pytest.mark.slow

GATE = "evaluate.require={latency_s: 1000}"
PROMPTS = [
    "a small red star in the top left on a blue background",
    "a large green ring in the center",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met what it demands."""
    root = tmp_path_factory.mktemp("gate") / "data"
    done = tld("run", TINY, *small(root), GATE)
    assert done.returncode == 0, done.stderr
    assert "models:/tiny/1 is now the champion: there was no champion" in done.stdout + done.stderr
    return root


@pytest.fixture
def uri(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)  # a test before this one in the process may have set another
    return uri


def test_a_met_demand_registers_the_model_with_its_card(root: Path, uri: str) -> None:
    version = MlflowClient(uri).get_model_version_by_alias("tiny", "champion")
    assert version.version in (1, "1")
    assert version.description
    assert "prompt_accuracy" in version.description
    assert "held-out pairs of shapes" in version.description
    assert str(root) not in version.description
    (report,) = root.glob("04_report/*")
    assert version.tags["tld.report"].startswith(report.name)


def test_the_champion_loads_in_mlflow_and_draws_what_our_own_call_draws(uri: str) -> None:
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    images = model.predict(
        pd.DataFrame({"prompt": PROMPTS}), params={"steps": 3, "guidance": 2.0, "seed": 7}
    )
    ours = registered_files("models:/tiny/champion", uri)
    generate = load_generator(ours.denoiser, ours.details.vae, ours.details.text_model, "cpu")
    np.testing.assert_array_equal(images, generate(PROMPTS, [7, 8], SamplingSettings(3, 2.0)))
    default = model.predict(pd.DataFrame({"prompt": PROMPTS}))
    np.testing.assert_array_equal(
        default, generate(PROMPTS, [0, 1], SamplingSettings(4, 2.0))
    )  # as conf/tiny.yaml draws
    away = model.predict(
        pd.DataFrame({"prompt": PROMPTS}), params={"negative": "a blue background"}
    )
    assert (away != default).any()


def test_what_is_no_model_of_ours_is_told(uri: str) -> None:
    with pytest.raises(MlflowException, match="nobody"):
        registered_files("models:/nobody@champion", uri)
    (experiment,) = MlflowClient(uri).search_experiments(filter_string="name = 'tiny'")
    run = MlflowClient(uri).create_run(experiment.experiment_id).info.run_id
    MlflowClient(uri).log_text(run, "a note", "notes/note.txt")
    with pytest.raises(MlflowException, match="no model of tld"):
        registered_files(f"runs:/{run}/notes", uri)


def test_a_rerun_registers_nothing_and_promote_crowns_another(root: Path, uri: str) -> None:
    again = tld("evaluate", TINY, *small(root), GATE)
    assert again.returncode == 0, again.stderr
    assert len(MlflowClient(uri).search_model_versions("name='tiny'")) == 1
    assert "version 1 already" in tld("promote", TINY, *small(root), GATE).stdout

    other = [*small(root, evaluate__guidance=3)]
    missing = tld("promote", TINY, *other)
    assert missing.returncode == 2
    assert "no model has been trained and evaluated with these settings in" in missing.stderr
    assert "Run:\n  tld run" in missing.stderr
    assert tld("evaluate", TINY, *other).returncode == 0
    assert len(MlflowClient(uri).search_model_versions("name='tiny'")) == 1, (
        "without a demand there is no gate"
    )
    promoted = tld("promote", TINY, *other)
    assert promoted.returncode == 0, promoted.stderr
    assert "models:/tiny@champion is version 2 now" in promoted.stdout
    assert "version 1, champion before" in promoted.stdout
    assert str(MlflowClient(uri).get_model_version_by_alias("tiny", "champion").version) == "2"


def test_a_champion_is_beaten_by_more_than_chance_explains() -> None:
    present = Registered(
        "m", "1", {"prompt_accuracy": (0.80, 0.77, 0.83), "clip_score": (30, 29, 31)}, "held out"
    )
    for value, wins in ((0.86, True), (0.83, False), (0.70, False)):
        challenger = Registered(
            "m", "2", {"prompt_accuracy": (value, value - 0.03, value + 0.03)}, "held out"
        )
        verdict = compare_with_champion(challenger, present)
        assert verdict.wins is wins, value
        assert "± 0.042" in verdict.reason  # sqrt(2) * 0.03
    assert compare_with_champion(challenger, None).wins
    assert not compare_with_champion(
        replace(present, scores={}), replace(present, version="0")
    ).wins
    elsewhere = compare_with_champion(replace(present, version="2", reference="others"), present)
    assert not elsewhere.wins
    assert "other held-out images" in elsewhere.reason
    few = compare_with_champion(replace(challenger, scores={"prompt_accuracy": (0.99,)}), present)
    assert not few.wins
    assert "0.99 against 0.8, without an interval (< 20 captions)" in few.reason
    by_clip = Registered("m", "2", {"clip_score": (33, 32, 34)}, "held out")
    assert compare_with_champion(by_clip, present).wins, "what both have decides"


def test_a_gate_missed_by_a_kill_is_passed_by_a_rerun_and_what_was_promoted_by_hand_stands(
    root: Path, uri: str
) -> None:
    client = MlflowClient(uri)
    client.delete_registered_model("tiny")  # as if killed between the report and the registry
    assert tld("evaluate", TINY, *small(root), GATE).returncode == 0
    (first,) = client.search_model_versions("name='tiny'")
    client.delete_model_version_tag("tiny", first.version, "tld.settled")
    client.delete_registered_model_alias(
        "tiny", "champion"
    )  # as if killed between the version and its alias
    assert tld("run", TINY, *small(root), GATE).returncode == 0
    assert client.get_model_version_by_alias("tiny", "champion").version == first.version
    assert len(client.search_model_versions("name='tiny'")) == 1

    client.delete_registered_model_alias("tiny", "champion")  # as somebody decides
    assert tld("evaluate", TINY, *small(root), GATE).returncode == 0
    assert not client.get_registered_model("tiny").aliases
