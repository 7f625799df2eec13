"""The table of scores, and that the documentation says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_catalog.feature_names import FEATURE_NAMES
from data_catalog.scores import (
    SCORES,
    Score,
    is_part,
    missing_without_clip,
    score_of,
    score_on,
    whole_scores,
)
from data_catalog.shapes.captions import ATTRIBUTE_NAMES

PAGE = Path(__file__).parents[2] / "docs/explanation/evaluation.md"
BETTER = {True: "higher", False: "lower", None: ""}


def documented() -> dict[str, str]:
    """Name -> what the page says is better."""
    rows = re.findall(r"^\| `([\w/-]+)`(.+)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = {name: rest.split("|") for name, rest in rows}  # meaning, better, computed from
    return {name: better.partition(";")[0].strip() for name, (*_, better, _) in cells.items()}


@pytest.mark.parametrize("score", whole_scores(SCORES), ids=lambda score: score.name)
def test_the_documentation_names_every_score_and_its_direction(score: Score) -> None:
    assert documented()[score.name] == BETTER[score.higher_is_better]


def test_the_documentation_names_no_other_scores() -> None:
    assert set(documented()) <= set(SCORES)


def test_parts_of_scores_have_the_properties_of_the_whole() -> None:
    assert score_of("cmmd") is SCORES["cmmd"]
    assert score_of("held_out_loss/0.0-0.2") is SCORES["held_out_loss"]
    assert score_of("reference/prompt_accuracy") is SCORES["prompt_accuracy"]
    for name in ATTRIBUTE_NAMES:
        part = score_of(f"reference/accuracy/{name}")
        assert part is SCORES[f"accuracy/{name}"]
        assert part.higher_is_better is True
    assert score_of("frechet_distance/dinov2").features == "dinov2"
    with pytest.raises(KeyError):
        score_of("beauty")


def test_tables_show_whole_scores_in_one_order_whatever_that_of_a_report() -> None:
    names = ["held_out_loss/0.0-0.2", "cmmd", "accuracy/size", "reference/prompt_accuracy"]
    shown = whole_scores([*names, "prompt_accuracy"])
    assert [score.name for score in shown] == ["prompt_accuracy", "cmmd"]
    assert [is_part(name) for name in names] == [True, False, True, True]


def test_scores_on_other_features_are_whole_scores_of_their_own() -> None:
    names = ["frechet_distance/efficientnet-lite0", "fid", "diversity/dinov2", "cmmd"]
    assert not any(is_part(name) for name in names)
    assert [score.name for score in whole_scores(names)] == ["cmmd", *names[:3]]
    assert score_on("frechet_distance", "inception") == "fid"
    assert score_on("kernel_distance", "inception") == "kid"
    assert score_on("cmmd", "inception") == "cmmd/inception"
    assert score_on("diversity", "clip") == "diversity"
    for measure in ("cmmd", "kernel_distance", "frechet_distance", "diversity"):
        for features in FEATURE_NAMES:
            assert SCORES[score_on(measure, features)].features == features


def test_what_is_compared_has_a_direction() -> None:
    """A champion must be better, and the reference is the same for all models."""
    for score in SCORES.values():
        assert not score.decides_champion or score.higher_is_better
        assert score.of_model or score.higher_is_better is None


def test_scores_on_other_features_are_not_missing_without_clip() -> None:
    scores = ["clip_score", "clip_score_reference"]
    distances = ["cmmd", "kernel_distance", "frechet_distance"]
    assert missing_without_clip(["clip"]) == [*scores, *distances, "diversity"]
    assert missing_without_clip(["inception"]) == scores, "fid and kid are there"
    assert missing_without_clip(["inception", "clip"]) == [*scores, *distances]
