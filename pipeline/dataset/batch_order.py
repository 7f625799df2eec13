"""Shuffled batch order for training, reproducible from any step.

Each epoch has its own permutation, which follows from (seed, epoch).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(slots=True)
class PairOrder:
    """The endless order of the training pairs of one set. Each epoch has its own permutation."""

    train: Numbers
    seed: int
    position: int  # of the next pair
    stream: int = 0  # another order for another set with the same seed
    _epoch: int = -1
    _permutation: Numbers = field(default_factory=lambda: np.empty(0, np.int64))

    def take(self, count: int) -> tuple[Numbers, Numbers]:
        """The numbers of the next pairs, and the epoch of each [count]"""
        epochs = (self.position + np.arange(count)) // len(self.train)
        parts = [np.empty(0, np.int64)]
        while count:
            epoch, start = divmod(self.position, len(self.train))
            if epoch != self._epoch:
                key = (self.seed, epoch, self.stream) if self.stream else (self.seed, epoch)
                self._epoch = epoch
                self._permutation = np.random.default_rng(key).permutation(self.train)
            parts.append(self._permutation[start : start + count])
            self.position += len(parts[-1])
            count -= len(parts[-1])
        return np.concatenate(parts), epochs
