"""The mix of a training: its phases in their order, and exact shares."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.config.load import load_config
from pipeline.config.mix import mix_shares, mixed_phases
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from tests.support.small import TINY, small

PHASES = ("phases.b.train.lr=1e-4", "phases.c.train.mix={c: 7, first: 3}", "phases.d.train.lr=1e-5")


def config_of(*overrides: str) -> RunConfig:
    return load_config(TINY, [*small("data"), *PHASES, *overrides])


def test_a_mix_is_of_one_phase_and_no_later_one_takes_it_over() -> None:
    _, _, third, fourth = config_of().chain
    assert mixed_phases(third) == {"first": third.chain[0], "c": third}, "first to last"
    assert fourth.train.mix == {}
    assert mixed_phases(fourth) == {}


def test_a_file_stores_the_mix_of_each_phase() -> None:
    same = "phases.d.train.mix={c: 7, first: 3}"
    config = config_of(same)
    stored = config.model_dump(mode="json")
    assert stored["phases"]["c"] == {"train": {"mix": {"c": 7, "first": 3}}}
    assert stored["phases"]["d"] == {"train": {"lr": 1e-5, "mix": {"c": 7, "first": 3}}}
    again = RunConfig.model_validate(stored)
    assert [one.train for one in again.chain] == [one.train for one in config.chain]


def test_a_distillation_draws_from_its_own_phase_alone() -> None:
    config = config_of("phases.d.train.mix={c: 1, first: 1}", "distill.sample_steps=4")
    assert config.distill is not None
    assert config.train.mix
    assert config.distill.training(config.train).mix == {}


def test_shares_are_exact_for_the_decimals_that_are_typed() -> None:
    expected = {"a": Fraction(3, 10), "b": Fraction(7, 10)}
    for weights in ({"a": 3.0, "b": 7.0}, {"a": 0.3, "b": 0.7}, {"a": 3e-300, "b": 7e-300}):
        assert mix_shares(weights) == expected
    assert mix_shares({"a": 1.0, "b": 1.0, "c": 1.0})["b"] == Fraction(1, 3)


def test_a_name_that_is_no_phase_yet_is_left_out() -> None:
    third = config_of("phases.c.train.mix={first: 1, d: 1, other: 1}").chain[2]
    assert list(mixed_phases(third)) == ["first"]


@pytest.mark.parametrize("weight", ["0", "-1", ".inf", "much"])
def test_weights_are_positive(weight: str) -> None:
    with pytest.raises(ConfigError, match=r"phases\.c\.train\.mix\.first: Input should be"):
        config_of(f"phases.c.train.mix.first={weight}")
