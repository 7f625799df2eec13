"""Phases of a run: what each takes over from the one before, what a file stores, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from tests.support.small import TINY, small

PHASES = (
    "phases.large.download.image_size=128",
    "phases.large.model.latent_size=16",
    "phases.large.train={steps: 6, launch: {processes: 2}, optimizer: adamw}",
    "phases.fine-tune.train.lr=1e-4",
)


def config_of(*overrides: str) -> RunConfig:
    return load_config(TINY, [*small("data"), *overrides])


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config_of(*overrides)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


def test_a_run_without_phases_is_a_chain_of_one() -> None:
    config = config_of()
    assert config.before is None
    assert config.chain == (config,)
    assert config.phase is None
    assert config.setting("train.lr") == "train.lr"


def test_a_phase_has_the_settings_of_the_one_before_except_its_own() -> None:
    config = config_of(*PHASES)
    assert [phase.phase for phase in config.chain] == ["first", "large", "fine-tune"]
    assert [phase.download.image_size for phase in config.chain] == [64, 128, 128]
    assert [phase.model.latent_size for phase in config.chain] == [8, 16, 16]
    assert [phase.train.steps for phase in config.chain] == [12, 6, 6]
    assert [phase.train.lr for phase in config.chain] == [1e-3, 1e-3, 1e-4]
    assert [phase.train.launch.processes for phase in config.chain] == [1, 2, 2]
    assert config.train.launch.rendezvous == config_of().train.launch.rendezvous
    assert config.setting("train.lr") == "phases.fine-tune.train.lr"


def test_first_weights_are_those_of_the_first_phase_alone() -> None:
    for setting in ("init_from", "continue_from"):
        config = config_of(f"train.{setting}=some", *PHASES)
        chosen = [getattr(phase.train, setting) for phase in config.chain]
        assert chosen == [Path("some"), None, None]


def test_a_phase_with_another_data_set_has_not_the_former_place() -> None:
    first, last = config_of("phases.fine.download.images=my/pictures").chain
    assert (first.download.urls, first.download.images) == ("shapes", None)
    assert (last.download.urls, last.download.images) == (None, "my/pictures")
    assert last.download.shard_size == first.download.shard_size


def test_what_belongs_to_the_last_model_is_not_asked_of_those_before() -> None:
    several = "phases.fine.train.ema_decay=[0.9, 0.99]"
    first, last = config_of(
        *(several, "evaluate.ema=1", "evaluate.require={clip_score: 20}", "distill.steps=9")
    ).chain
    assert (first.distill, first.evaluate.ema, first.evaluate.require) == (None, 0, {})
    assert last.distill
    assert last.distill.ema == last.evaluate.ema == 1
    assert first.evaluate.prompts == last.evaluate.prompts


def test_phase_chooses_an_earlier_one() -> None:
    for number, name in enumerate(("first", "large", "fine-tune")):
        chosen = config_of(*PHASES, f"phase={name}")
        assert chosen.phase == name
        assert len(chosen.chain) == number + 1
        assert chosen.train == config_of(*PHASES).chain[number].train


@pytest.mark.parametrize("chosen", [(), ("phase=large",), ("phase=first",)])
def test_a_file_stores_the_first_phase_and_what_changes_then(chosen: tuple[str, ...]) -> None:
    typed = ("train.init_from=some", "train.caption_weights={a: 1}", "cache.folder=/copies")
    other_weights = "phases.fine-tune.train.caption_weights={b: 2}"
    config = config_of(*typed, *PHASES, other_weights, *chosen)
    stored = config.model_dump(mode="json")
    assert stored["train"]["init_from"] == "some"
    assert stored["download"]["image_size"] == 64
    later = {
        "large": {
            "download": {"image_size": 128},
            "model": {"latent_size": 16},
            "train": {"steps": 6, "launch": {"processes": 2}, "optimizer": "adamw"},
        },
        "fine-tune": {"train": {"lr": 1e-4, "caption_weights": {"b": 2}}},
    }
    names = [phase.phase for phase in config.chain[1:]]
    assert stored["phases"] == {name: later[str(name)] for name in names}
    again = RunConfig.model_validate(stored)
    assert again.model_dump(mode="json") == stored
    assert [p.train for p in again.chain] == [p.train for p in config.chain]
    assert pickle.loads(pickle.dumps(config)) == config


def test_all_problems_of_all_phases_are_told_once_with_their_place() -> None:
    assert problems(
        *("train.batch_size=none", "nme=x", "phases.a.train.lr=-1", "phases.b.train.lrr=1"),
        *("phases.b.train.init_from=x", "phases.a.evaluate.steps=3"),
    ) == [
        "train.batch_size: Input should be a valid integer, unable to parse string as an integer, "
        "got 'none'",
        "nme: no such setting; did you mean 'name'?",
        "phases.a.train.lr: Input should be greater than 0, got -1",
        "phases.a: has evaluate, but a phase changes download, encode, model, train alone; what "
        "all phases share stands at the top of the file",
        "phases.b.train.lrr: no such setting; did you mean 'lr'?",
        "phases.b.train: init_from: a phase begins with the weights of the phase before it; remove "
        "this setting, or set it at the top of the file for the first phase",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("phases=3", "phases: Input should be a valid dictionary, got 3"),
        ("phases.a=3", "phases.a: Input should be a valid dictionary or instance of PhaseConfig"),
        ("phases.a.train=3", "phases.a.train: Input should be a valid dictionary, got 3"),
        ("phases.a b.train.lr=1", "phases.a b.[key]: String should match pattern"),
        ("phases.first.train.lr=1", "phases.first: the training of `train` has this name"),
        ("phase=b", "phase: there is no phase 'b'; known: first, a"),
        ("phase=512", "phase: must be text, got 512; put it in quotes"),
        ("phases.a.train.decay_steps=5", "phases.a.train: decay_steps is 5, but lr_schedule="),
        ("evaluate.ema=1", "evaluate.ema: there is no average 1"),
    ],
)
def test_what_is_no_phase_is_refused(override: str, problem: str) -> None:
    (told,) = problems("phases.a.train.steps=9", override)
    assert told.startswith(problem)
