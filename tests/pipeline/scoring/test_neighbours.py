"""Nearest neighbours at values that are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.scoring.neighbours import nearest, ranks


def at(*degrees: float) -> Tensor:
    """Features on a circle: the cosine of two is that of the angle between them."""
    radians = [math.radians(angle) for angle in degrees]
    return torch.tensor([[3 * math.cos(a), 3 * math.sin(a)] for a in radians])


def test_the_nearest_is_that_of_the_smallest_angle() -> None:
    found = nearest(at(0, 44, 46, 180), at(90, 0, 170))
    assert found.index.tolist() == [1, 1, 0, 2]
    assert found.cosine.tolist() == pytest.approx(
        [math.cos(math.radians(angle)) for angle in (0, 44, 44, 10)], abs=1e-6
    )


def test_the_length_of_features_does_not_count() -> None:
    assert nearest(at(10), torch.cat([100 * at(60), 0.01 * at(20)])).index.tolist() == [1]


def test_a_rank_counts_what_is_nearer_than_the_true_one() -> None:
    candidates = at(0, 10, 20, 30, 90)
    queries = at(1, 1, 1, 89)
    assert ranks(queries, candidates, np.array([0, 2, 4, 4])).tolist() == [0, 2, 4, 0]


def test_features_that_are_all_alike_find_nothing() -> None:
    same = torch.ones(7, 4)
    assert ranks(same, same, np.arange(7)).tolist() == [6] * 7


def test_more_queries_than_fit_at_once() -> None:
    features = torch.randn(700, 8, generator=torch.Generator().manual_seed(0))
    assert nearest(features, features).index.tolist() == list(range(700))
    assert ranks(features, features, np.arange(700)).max() == 0
    random = torch.from_numpy(np.random.default_rng(0).standard_normal((700, 8)))
    unit = torch.nn.functional.normalize(torch.cat([random.float(), features]), dim=1)
    cosines = unit[:700] @ unit[700:].T
    expected = (cosines > cosines.diagonal()[:, None]).sum(1)
    assert ranks(random, features, np.arange(700)).tolist() == expected.tolist()
