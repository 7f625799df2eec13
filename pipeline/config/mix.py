"""The mix of a training: of which phases its pairs come, and the share of each."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from pipeline.config.run import RunConfig


def mixed_phases(config: RunConfig) -> dict[str, RunConfig]:
    """The phases of train.mix by name, first to last; {} without a mix. A name that is neither of
    this phase nor of an earlier one is left out; the checks before a run report it."""
    if config.before is None:
        return {}
    return {str(one.phase): one for one in config.chain if one.phase in config.train.mix}


def mix_shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """The share of each phase by the weights of train.mix, exact for the decimals as they are
    typed: {a: 3, b: 7} is {a: 0.3, b: 0.7}."""
    typed = {name: Fraction(repr(weight)) for name, weight in weights.items()}
    total = sum(typed.values(), Fraction())
    return {name: weight / total for name, weight in typed.items()}
