"""Random numbers of pairs, each a function of (seed, epoch, pair): neither a resume nor another
number of processes changes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# SplitMix64 (Steele et al., 2014, fig. 17): the increment of the counter and the two multipliers of
# its mixing function.
_STEP, _MIX_1, _MIX_2 = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_FLIPS = np.uint64(0x666C6970)  # keeps the draws of flips independent of those of captions


def uniform_of_pairs(
    seed: int, numbers: NDArray[np.int64], epochs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A uniform random number in [0, 1) for each pair in its epoch [b]"""
    return _uniform(np.uint64(seed % 2**64), numbers, epochs)


def flips_of_pairs(
    seed: int, numbers: NDArray[np.int64], epochs: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether a pair is mirrored in its epoch, which is so in half of them [b]"""
    (state,) = _mix(np.array([seed % 2**64], np.uint64) ^ _FLIPS)
    return _uniform(state, numbers, epochs) < 0.5


def _uniform(
    state: np.uint64, numbers: NDArray[np.int64], epochs: NDArray[np.int64]
) -> NDArray[np.float64]:
    mixed = np.full(len(numbers), state, np.uint64)
    for part in (epochs, numbers):
        mixed = _mix(mixed ^ part.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The next SplitMix64 number of each state, modulo 2^64."""
    z = state + _STEP
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
