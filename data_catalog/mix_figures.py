"""Figures of a mix: what a training drew from the encodings of each phase."""

from __future__ import annotations

from collections.abc import Mapping

from data_catalog.storage.manifest import StoredValues


class MixedSetFigures(StoredValues):
    """What a training drew from one set of its mix."""

    share: float
    """Share of the pairs of each batch, by train.mix."""
    train_pairs: int
    """Pairs to train on."""
    drawn_pairs: int
    """Pairs that were drawn; one that was drawn twice counts twice."""


def mix_in_words(mix: Mapping[str, MixedSetFigures]) -> str:
    """The sets by phase, with their shares and pairs."""
    sets = [f"{one.share:.3g} {phase} ({one.train_pairs:,} pairs)" for phase, one in mix.items()]
    return f"a mix of {' and '.join(sets)}"
