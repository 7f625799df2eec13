"""Shuffled batch order for training, reproducible from any step.

Each epoch has its own permutation, which follows from (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def batch_epochs(train_pairs: int, batch_size: int, step: int) -> NDArray[np.int64]:
    """The epoch of each pair in the batch of a step [b]"""
    return (step * batch_size + np.arange(batch_size)) // train_pairs


def batch_numbers(
    train: NDArray[np.int64], batch_size: int, seed: int, first_step: int
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of pair numbers, starting at a step. Each epoch has its own order."""
    position = first_step * batch_size
    epoch, order = -1, train
    while True:
        chosen: list[NDArray[np.int64]] = []
        missing = batch_size
        while missing:
            if position // len(train) != epoch:
                epoch = position // len(train)
                order = np.random.default_rng((seed, epoch)).permutation(train)
            start = position % len(train)
            part = order[start : start + missing]
            chosen.append(part)
            position += len(part)
            missing -= len(part)
        yield np.concatenate(chosen)
