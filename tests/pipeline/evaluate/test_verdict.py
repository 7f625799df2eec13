"""What a report says first."""

from __future__ import annotations

import math

import pytest

from pipeline.evaluate.verdict import verdict
from pipeline.scoring.bootstrap import Estimate


def estimate(value: float, low: float = -math.inf, high: float = math.inf) -> Estimate:
    return Estimate(value, low, high, 512)


def test_shapes_are_judged_by_their_captions_and_the_worst_attribute_is_named() -> None:
    accuracies = {"accuracy/size": estimate(0.99), "accuracy/position": estimate(0.5, 0.4, 0.6)}
    sentences = verdict({"prompt_accuracy": estimate(0.497, 0.41, 0.58), **accuracies})

    assert sentences == [
        "49.7 % (41.0 to 58.0 %) of the samples show all that their caption says.",
        "Most often wrong is the position: right in 50.0 % (40.0 to 60.0 %).",
    ]


def test_no_attribute_is_blamed_where_nearly_all_is_right() -> None:
    right = {"prompt_accuracy": estimate(0.99), "accuracy/size": estimate(0.99)}

    assert verdict(right) == ["99.0 % of the samples show all that their caption says."]


def test_pictures_are_judged_by_retrieval_and_distance_beside_those_of_real_images() -> None:
    sentences = verdict(
        {
            "frechet_distance/efficientnet-lite0": estimate(99.2, 95.1, 104.2),
            "reference/frechet_distance/efficientnet-lite0": estimate(55.9),
            "retrieval_at_5": estimate(0.16),
            "reference/retrieval_at_5": estimate(0.596),
        }
    )

    assert sentences == [
        "16.0 % of the samples have an image of their concept among the five nearest real ones; of "
        "real images, 59.6 % do.",
        "The Fréchet distance to the held-out images (frechet_distance/efficientnet-lite0) is 99.2 "
        "(95.1 to 104); as many training images have 55.9.",
    ]


@pytest.mark.parametrize("name", ["fid", "frechet_distance"])
def test_a_part_of_the_scores_is_enough(name: str) -> None:
    assert len(verdict({name: estimate(3.0)})) == 1
    assert verdict({"held_out_loss": estimate(0.1)}) == []
    both = {"clip_score": estimate(93.8), "clip_score_reference": estimate(93.4)}
    assert verdict(both) == ["The CLIP score is 93.8, that of the held-out images 93.4."]
