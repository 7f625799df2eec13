"""A gate that no model can pass is refused before the training."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.preflight.gate_checks import check_gate
from pipeline.run.train_nodes import train_on_nodes
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace


def demanding(root: Path, require: str, prompts: int) -> RunConfig:
    settings = small(root, evaluate__prompts=prompts)
    return load_config(TINY, [*settings, f"evaluate.require={{{require}}}"])


def test_a_distance_of_too_few_prompts_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        check_run(demanding(tmp_path, "cmmd: 5, clip_score: 1, frechet_distance: 9", 49))
    assert "evaluate.require: cmmd and frechet_distance cannot be given" in str(raised.value)
    assert "evaluate.prompts is 49; set evaluate.prompts=50" in str(raised.value)
    check_run(demanding(tmp_path, "cmmd: 5", 50))
    check_run(demanding(tmp_path, "clip_score: 1", 12))


def test_too_few_held_out_pairs_are_refused_before_the_training(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data", evaluate__prompts=50)
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings
    check_gate(config, encodings)

    gate = config.evaluate.model_copy(update={"require": {"cmmd": 5.0}})
    gated = config.model_copy(update={"evaluate": gate})
    out = tmp_path / "model"
    parents, track = {"encode": encodings}, RememberingTracker()
    with pytest.raises(ConfigError, match="only 24 pairs are held out of training"):
        train_on_nodes(parents, RunInputs(gated), track, out, force=False)
    assert not out.exists()
