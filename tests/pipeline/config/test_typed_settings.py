"""Settings as they are typed, and the settings in which runs differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.typed_settings import (
    default_settings,
    overrides_between,
    settings_digest,
    typed_settings,
)

TINY = Path("tiny")
CHANGED = [
    "train.lr=2e-3",
    "train.score.every=100",
    "encode.text_template=[a] {}",
    "evaluate.require={prompt_accuracy: 0.9}",
    "evaluate.features=[clip]",
    "download.split_column='null'",
    "distill.sample_steps=2",
    "phases.fine.train.steps=5",
]


def test_each_setting_has_its_whole_name() -> None:
    settings = typed_settings(load_config(TINY, CHANGED))
    assert settings["train.steps"] == "1500"
    assert settings["evaluate.steps"] == "20"
    assert settings["train.score.every"] == "100"
    assert settings["distill.sample_steps"] == "2"
    assert settings["phases.fine.train.steps"] == "5"
    assert "steps" not in settings


def test_what_is_written_is_read_back_as_the_same_run() -> None:
    config = load_config(TINY, CHANGED)
    words = [f"{name}={value}" for name, value in typed_settings(config).items()]
    again = load_config(TINY, words)
    # A value that is typed has its ~ expanded.
    assert again.model_dump(exclude={"cache"}) == config.model_dump(exclude={"cache"})


def test_secrets_of_urls_are_not_repeated() -> None:
    config = load_config(TINY, ["download.urls=https://me:canary@host/a.csv?token=canary"])
    assert typed_settings(config)["download.urls"] == "https://host/a.csv?token=***"


@pytest.mark.parametrize(
    ("override", "differs"),
    [
        ("train.lr=2e-3", {"train.lr": "0.002"}),
        ("download.urls=mine.csv", {"download.urls": "mine.csv"}),
        ("phases.fine.train.steps=5", {"phases.fine.train.steps": "5", "phase": "fine"}),
        ("phases.fine.train.log_every=7", {"phase": "fine"}),
        ("evaluate.require={clip_score: 1}", {"evaluate.require": '{"clip_score": 1.0}'}),
        ("name=other", {}),
        ("root=elsewhere", {}),
        ("encode.workers=7", {}),
        ("engine.workers=7", {}),
        ("train.launch.processes=2", {}),
    ],
)
def test_runs_differ_in_what_can_change_an_output(override: str, differs: dict[str, str]) -> None:
    base = default_settings() | typed_settings(load_config(TINY))
    assert overrides_between(base, load_config(TINY, [override])) == differs


def test_a_setting_that_an_earlier_version_did_not_have_is_its_default() -> None:
    recorded = typed_settings(load_config(TINY))
    del recorded["encode.flips"]
    assert not overrides_between(default_settings() | recorded, load_config(TINY))
    flipped = load_config(TINY, ["encode.flips=true"])
    assert overrides_between(default_settings() | recorded, flipped) == {"encode.flips": "true"}


def test_a_digest_stands_for_the_name_and_what_can_change_an_output() -> None:
    digest = settings_digest(load_config(TINY))
    no_output = ("evaluate.price_per_hour=2.5", "encode.keep_images=false")
    for same in ("download.workers=3", "root=elsewhere", "train.lr=0.005", *no_output):
        assert settings_digest(load_config(TINY, [same])) == digest
    for other in ("name=other", "train.lr=0.004", "evaluate.prompts=9"):
        assert settings_digest(load_config(TINY, [other])) != digest
