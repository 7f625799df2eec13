"""The nearest training image of each sample: whether a model repeats what it was trained on.

n samples   t training images that are compared   d feature width
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.held_out.real_images import FeaturesOf, Numbers
from pipeline.scoring.neighbours import Neighbours, nearest

MOST_TRAINING_IMAGES = 2000  # that are compared: decoding them takes time


@dataclass(frozen=True, slots=True)
class NearestImages:
    """The nearest training images of the samples, and of the held-out images of their captions."""

    numbers: Numbers  # [t], of the pairs that are compared
    features: Tensor  # [t, d], of their images
    training: int  # pairs in all
    of_samples: Neighbours  # [n] of t
    of_real: Neighbours  # [n] of t

    @property
    def sample_median(self) -> float:
        """The median cosine of a sample with its nearest training image."""
        return float(np.median(self.of_samples.cosine))

    @property
    def real_median(self) -> float:
        """The same of real images that training never saw."""
        return float(np.median(self.of_real.cosine))

    def random_features(self, count: int) -> Tensor | None:
        """The features of so many training images in random order, the same each time: float32
        [count, d]; None if fewer are compared."""
        if count > len(self.features):
            return None
        return self.features[np.random.default_rng(0).permutation(len(self.features))[:count]]


def find_nearest_images(
    features_of: FeaturesOf, train: Numbers, samples: Tensor, real: Tensor
) -> NearestImages:
    """Compare features of samples and of the held-out images of their captions, [n, d] each, with
    those of the training images; of many, with a random choice, the same each time."""
    numbers = train
    if len(train) > MOST_TRAINING_IMAGES:
        chosen = np.random.default_rng(0).choice(len(train), MOST_TRAINING_IMAGES, replace=False)
        numbers = train[np.sort(chosen)]
    candidates = features_of(numbers)
    return NearestImages(
        numbers, candidates, len(train), nearest(samples, candidates), nearest(real, candidates)
    )
