"""The nearest training images: a model that repeats its training images, and many of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.evaluate.nearest_images import MOST_TRAINING_IMAGES, find_nearest_images
from pipeline.held_out.real_images import Numbers

FEATURES = torch.randn(3000, 16, generator=torch.Generator().manual_seed(1))


def features_of(numbers: Numbers) -> Tensor:
    return FEATURES[numbers]


def test_samples_that_repeat_training_images_have_a_cosine_of_1() -> None:
    train, held_out = np.arange(0, 200, 2), np.arange(1, 200, 2)
    memorised = 5 * FEATURES[train[[3, 1, 4, 1]]]
    found = find_nearest_images(features_of, train, memorised, FEATURES[held_out[:4]])
    assert found.of_samples.cosine == pytest.approx(np.ones(4), abs=1e-6)
    assert found.numbers[found.of_samples.index].tolist() == [6, 2, 8, 2]
    assert found.sample_median == pytest.approx(1, abs=1e-6)
    cosines = torch.nn.functional.cosine_similarity(
        FEATURES[held_out[:4], None], FEATURES[None, train], dim=2
    )
    assert found.real_median == pytest.approx(float(np.median(cosines.max(1).values)), abs=1e-6)
    assert found.real_median < 0.9
    assert found.training == len(found.numbers) == 100


def test_of_many_training_images_the_same_choice_is_compared_each_time() -> None:
    train = np.arange(3000)
    runs = [find_nearest_images(features_of, train, FEATURES[:2], FEATURES[:2]) for _ in range(2)]
    assert runs[0].training == 3000
    assert len(np.unique(runs[0].numbers)) == MOST_TRAINING_IMAGES
    assert runs[0].numbers.tolist() == runs[1].numbers.tolist() == sorted(runs[0].numbers.tolist())
