"""Random numbers of pairs: SplitMix64 of seed, epoch and pair, and flips that are independent."""

from __future__ import annotations

import numpy as np

from pipeline.dataset.pair_draws import flips_of_pairs, uniform_of_pairs


def mix(state: int) -> int:
    """SplitMix64 in Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_numbers_are_those_of_splitmix() -> None:
    numbers, epochs = np.arange(5), np.array([0, 1, 1, 2, 7])
    expected = [
        (mix(mix(12 ^ epoch) ^ number) >> 11) / 2**53
        for number, epoch in zip(numbers.tolist(), epochs.tolist(), strict=True)
    ]
    assert uniform_of_pairs(12, numbers, epochs).tolist() == expected


def test_half_of_the_pairs_are_mirrored_independently_of_epoch_seed_and_captions() -> None:
    numbers = np.arange(20_000)
    first = flips_of_pairs(1, numbers, np.zeros_like(numbers))
    assert 0.48 < first.mean() < 0.52
    for other in (
        flips_of_pairs(1, numbers, np.ones_like(numbers)),
        flips_of_pairs(2, numbers, np.zeros_like(numbers)),
        uniform_of_pairs(1, numbers, np.zeros_like(numbers)) < 0.5,
    ):
        assert 0.48 < (other == first).mean() < 0.52
    backwards = flips_of_pairs(1, numbers[::-1].copy(), np.zeros_like(numbers))
    assert (backwards[::-1] == first).all()
