"""Which settings differ between two outputs, or between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import load_config
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.setting_changes import (
    SettingChange,
    recorded_settings,
    run_changes,
    setting_changes,
)
from tests.support.small import TINY


def changes_of(stage: str, *overrides: str) -> list[str]:
    """Those of the output of a stage, against that of conf/tiny.yaml."""
    both = [RunInputs(load_config(TINY, words)).settings(stage) for words in ((), overrides)]
    before, now = (recorded_settings(stage, settings) for settings in both)
    return [str(change) for change in setting_changes(before, now)]


@pytest.mark.parametrize(
    ("stage", "overrides", "changes"),
    [
        ("train", ["train.steps=3000"], ["train.steps 1500 -> 3000"]),
        ("train", ["train.log_every=7", "evaluate.steps=3", "train.lr=5e-3"], []),
        (
            "train",
            ["train.lr=1e-3", "model.layers=2", "train.ema_decay=[0.9, 0.99]"],
            ["model.layers 4 -> 2", "train.lr 0.005 -> 0.001", "train.ema_decay [0.99] -> [0.9, 0.99]"],
        ),
        ("evaluate", ["evaluate.require.clip_score=80"], ["evaluate.require.clip_score default -> 80.0"]),
        ("download", ["download.near_duplicate_bits=3"], ["download.near_duplicate_bits null -> 3"]),
    ],
)  # fmt: skip
def test_settings_have_the_names_and_values_that_a_user_types(
    stage: str, overrides: list[str], changes: list[str]
) -> None:
    assert changes_of(stage, *overrides) == changes


def test_of_a_table_with_other_content_the_digests_are_shown_in_short(tmp_path: Path) -> None:
    digests = []
    for number in (1, 2):
        table = tmp_path / "urls.csv"
        table.write_text(f"url,caption\nhttps://host.example/{number}.jpg,a star\n")
        config = load_config(TINY, [f"download.urls={table}"])
        digests.append(RunInputs(config).settings("download"))
    before, now = (recorded_settings("download", one) for one in digests)
    (change,) = setting_changes(before, now)
    assert change == SettingChange(
        "content of download.urls", *(one["urls_digest"][:12] for one in digests)
    )


def test_of_another_encoder_the_name_says_it_and_not_its_content_too() -> None:
    recorded: dict[str, Any] = RunInputs(load_config(TINY, ())).settings("encode")
    other = recorded | {"vae": "other-vae", "vae_identity": "a" * 64}
    changed = setting_changes(
        recorded_settings("encode", recorded), recorded_settings("encode", other)
    )
    assert [str(change) for change in changed] == ["encode.vae shapes-vae -> other-vae"]

    other["vae"] = recorded["vae"]
    (change,) = setting_changes(
        recorded_settings("encode", recorded), recorded_settings("encode", other)
    )
    assert change.name == "content of encode.vae"
    assert change.now == "a" * 12


def test_a_distillation_repeats_no_setting_of_its_training() -> None:
    before, now = (
        RunInputs(load_config(TINY, ["distill.sample_steps=4", *words])).settings("distill")
        for words in ((), ("distill.lr=1e-4", "train.batch_size=8", "model.layers=2"))
    )
    changes = setting_changes(
        recorded_settings("distill", before), recorded_settings("distill", now)
    )
    assert [change.name for change in changes] == ["model.layers", "train.batch_size", "distill.lr"]


def test_of_two_runs_every_setting_counts() -> None:
    words = ["train.seed=1", "evaluate.guidance=1", "train.log_every=7", "train.score.every=10"]
    first, second = load_config(TINY, ()), load_config(TINY, words)
    changes = [str(change) for change in run_changes(first, second)]
    assert "train.seed 0 -> 1" in changes
    assert "evaluate.guidance 2.0 -> 1.0" in changes
    assert "train.score.every 0 -> 10" in changes
    assert not run_changes(first, load_config(TINY, ()))


def test_a_section_that_only_one_run_has_is_named_once() -> None:
    first, second = load_config(TINY, ()), load_config(TINY, ["distill.sample_steps=4"])
    changes = [str(change) for change in run_changes(first, second)]
    assert "distill.sample_steps not set -> 4" in changes
    assert not [change for change in changes if change.startswith("distill ")]
