"""The figures of a mix, in a manifest and in words."""

from __future__ import annotations

from data_catalog.figures import ModelFigures
from data_catalog.mix_figures import MixedSetFigures

PLAIN = ModelFigures(train_pairs=1200, held_out_pairs=5, steps=2, parameters=1, losses={})


def test_a_model_says_in_words_what_it_was_trained_on() -> None:
    sets = {
        "first": MixedSetFigures(share=0.3, train_pairs=1200, drawn_pairs=9),
        "fine": MixedSetFigures(share=0.7, train_pairs=40, drawn_pairs=21),
    }
    assert PLAIN.pairs == "1,200 pairs"
    mixed = PLAIN.model_copy(update={"mix": sets})
    assert mixed.pairs == "a mix of 0.3 first (1,200 pairs) and 0.7 fine (40 pairs)"


def test_figures_without_a_mix_are_stored_as_they_always_were() -> None:
    assert "mix" not in PLAIN.model_dump(mode="json")
    mix = {"first": MixedSetFigures(share=1, train_pairs=2, drawn_pairs=3)}
    stored = PLAIN.model_copy(update={"mix": mix}).model_dump(mode="json")
    assert ModelFigures.model_validate(stored).mix == mix
