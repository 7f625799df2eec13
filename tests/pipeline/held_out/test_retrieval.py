"""Retrieval of a concept among the images of a style, with features and answers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.held_out.real_images import Numbers
from pipeline.held_out.retrieval import (
    MOST_CONCEPTS,
    Labels,
    Retrieval,
    StyleSearch,
    plan_searches,
    retrieve,
)

# Pairs: 0 to 3 show the concepts 0 to 3 in style 0, 4 to 6 the concepts 0 to 2 in style 1, 7 the
# concept 0 in style 0 again, 8 has no style and 9 the concept 4 in style 1 alone.
LABELS = Labels(np.array([0, 1, 2, 3, 0, 1, 2, 0, 1, 4]), np.array([0, 0, 0, 0, 1, 1, 1, 0, -1, 1]))
DEGREES = [0, 10, 20, 30, 100, 12, 28, 5, 0, 200]


def at(degrees: list[float]) -> Tensor:
    """Features on a circle: the cosine of two is that of the angle between them."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def features_of(numbers: Numbers) -> Tensor:
    return at([DEGREES[number] for number in numbers])


def search(held_out: list[int], samples: list[float], labels: Labels = LABELS) -> Retrieval:
    searches = list(plan_searches(labels, np.array(held_out), seed=0))
    retrieval = retrieve(features_of, searches, at(samples))
    assert retrieval
    return retrieval


def test_each_sample_is_searched_among_the_images_of_its_style() -> None:
    retrieval = search([2, 5, 1, 9], [19, 60, 22, 100])
    assert retrieval.positions.tolist() == [0, 1, 2, 3]
    assert retrieval.candidates.tolist() == [4, 4, 4, 4], "7 repeats a concept, 8 has no style"
    # 19 is nearest to 20; 60 to 28 (of 12, 28, 100, 200), then to 100; 22 to 20 before 30 and 10
    assert retrieval.nearest.tolist() == [2, 6, 2, 4]
    assert retrieval.true.tolist() == [2, 5, 1, 9]
    assert retrieval.ranks.tolist() == [0, 2, 2, 3]


def test_the_ceiling_is_that_of_the_same_concept_in_another_style() -> None:
    retrieval = search([2, 5, 1, 9], [0, 0, 0, 0])
    # 28 among 0, 10, 20, 30; 10 among 100, 12, 28, 200; 12 among 0, 10, 20, 30
    assert retrieval.ceiling_ranks.tolist() == [1, 0, 0, -1], "concept 4 is in one style alone"
    scores = retrieval.estimates(["a", "b", "c", "d"])
    assert scores["reference/retrieval_at_1"].value == pytest.approx(2 / 3)
    assert scores["reference/retrieval_at_5"].value == 1
    assert scores["reference/retrieval_at_1"].n == 3


def test_shares_and_chance() -> None:
    retrieval = search([2, 5, 1, 9], [19, 60, 22, 100])
    scores = retrieval.estimates(["a", "b", "c", "d"])
    assert scores["retrieval_at_1"].value == 0.25
    assert scores["retrieval_at_5"].value == 1
    assert scores["retrieval_at_1"].n == 4
    assert scores["retrieval_at_1"].interval is None, "there are fewer than 20 captions"
    assert retrieval.chance(1) == 0.25
    assert retrieval.chance(5) == 1


def test_a_share_has_wilsons_interval_by_captions() -> None:
    held_out = [2] * 30 + [1] * 30
    retrieval = search(held_out, [20] * 60)
    scores = retrieval.estimates([f"caption {number}" for number in range(60)])
    share = scores["retrieval_at_1"]
    assert share.value == 0.5
    assert 0.36 < share.low < 0.39
    assert 0.61 < share.high < 0.64


def test_with_one_style_there_is_no_ceiling() -> None:
    labels = Labels(LABELS.concepts, np.where(LABELS.styles == 1, -1, LABELS.styles))
    retrieval = search([2, 5, 1], [20, 0, 10], labels)
    assert retrieval.positions.tolist() == [0, 2]
    assert set(retrieval.estimates(["a", "b", "c"])) == {"retrieval_at_1", "retrieval_at_5"}


def test_without_labels_nothing_is_searched() -> None:
    nothing = Labels(np.full(10, -1), np.full(10, -1))
    searches = list(plan_searches(nothing, np.array([1, 2]), seed=0))
    assert not searches
    assert retrieve(features_of, searches, at([0, 0])) is None


def test_a_style_of_many_concepts_is_searched_by_a_part_with_those_asked_for() -> None:
    count = MOST_CONCEPTS + 3_000
    concepts = np.append(np.arange(count)[::-1], np.arange(7))
    labels = Labels(concepts, np.append(np.zeros(count, np.int64), np.ones(7, np.int64)))
    held_out = np.array([0, 4_000, count - 1, 4_000])

    def plan(seed: int, asked: Numbers = held_out) -> StyleSearch:
        (only,) = plan_searches(labels, asked, seed)
        return only

    first = plan(0)
    assert len(set(first.candidates.tolist())) == MOST_CONCEPTS
    assert first.candidates[first.true].tolist() == held_out.tolist()
    assert first.others.tolist() == [-1, -1, count, -1], "the ceiling is as without a bound"
    assert np.array_equal(plan(0).candidates, first.candidates)
    assert not np.array_equal(plan(1).candidates, first.candidates)
    assert len(plan(0, np.arange(MOST_CONCEPTS + 1)).candidates) == MOST_CONCEPTS + 1


def test_the_image_of_another_style_follows_from_the_seed_and_the_pair_alone() -> None:
    concepts, styles = np.tile(np.arange(20), 11), np.repeat(np.arange(11), 20)
    labels = Labels(concepts, styles)

    def others(held_out: list[int], seed: int) -> dict[int, int]:
        drawn = dict[int, int]()
        for plan in plan_searches(labels, np.array(held_out), seed):
            pairs = np.array(held_out)[plan.positions].tolist()
            drawn |= dict(zip(pairs, plan.others.tolist(), strict=True))
        return drawn

    drawn = others(list(range(220)), 0)
    assert all(
        concepts[pair] == concepts[other] and styles[pair] != styles[other]
        for pair, other in drawn.items()
    )
    assert others([7, 3, 190], 0) == {pair: drawn[pair] for pair in (7, 3, 190)}
    assert others(list(range(220)), 1) != drawn
