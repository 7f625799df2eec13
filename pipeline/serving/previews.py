"""Previews of unfinished images, made so seldom that they slow a batch down by a tenth at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# Decodes what the model predicts by now: images of each request of a batch, uint8 [count, h, w, 3].
MakePreviews = Callable[[], Sequence[NDArray[np.uint8]]]
_EVERY_S = 1.0
_MOST_SHARE = 0.1  # of the time of a batch


class PreviewPace:
    """When the next previews may be made, on one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cost_s = 0.0  # of the latest ones
        self._due_at = 0.0

    def begin_batch(self) -> None:
        """Let a batch work for a while first: short ones have no previews."""
        self._due_at = self._clock() + max(_EVERY_S, self._cost_s / _MOST_SHARE)

    def make(self, previews: MakePreviews) -> Sequence[NDArray[np.uint8]] | None:
        """The previews if they are due, else None."""
        started = self._clock()
        if started < self._due_at:
            return None
        images = previews()
        self._cost_s = self._clock() - started
        self.begin_batch()
        return images
