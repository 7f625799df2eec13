"""The split: when too few pairs are held out to judge a model by."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.split import Split, few_held_out


def split_of(train: int, held_out: int) -> Split:
    numbers = np.arange(train + held_out)
    return Split(numbers[:train], numbers[train:], ["a caption"] * held_out)


@pytest.mark.parametrize("held_out", [1, 15])
def test_few_held_out_pairs_are_counted_and_the_settings_named(held_out: int) -> None:
    warning = few_held_out(split_of(1000, held_out), 0.02)
    assert f"only {held_out} of {1000 + held_out:,} pairs are held out" in warning
    assert "train.held_out_fraction (now 0.02)" in warning
    assert "download.split_column" in warning


def test_enough_held_out_pairs_pass_in_silence() -> None:
    assert few_held_out(split_of(1000, 16), 0.02) == ""
