"""Scores that a training cannot compute are refused before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.preflight.score_checks import check_best, score_problems
from pipeline.run.train_nodes import train_on_nodes
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace

OTHER_DATA = ("download.urls=table.csv", "encode.clip=null", "encode.text_encoder=t5-small")


def problems(root: Path, *overrides: str) -> list[str]:
    every = ["train.score.every=5", *overrides]
    return list(score_problems(load_config(TINY, [*small(root), *every])))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], []),
        (["train.score.best_by=prompt_accuracy"], []),
        (["train.score.best_by=frechet_distance"], []),
        (["train.score.best_by=held_out_loss", "train.score.features=[]"], []),
        (
            ["train.score.best_by=accuracy/size", *OTHER_DATA],
            ["accuracy/size is available only for the built-in", "nothing can score samples"],
        ),
        (
            ["train.score.best_by=clip_score", *OTHER_DATA],
            ["clip_score needs CLIP, but encode.clip is null", "nothing can score samples"],
        ),
        (
            ["train.score.best_by=fid", "train.score.prompts=49"],
            [
                "fid needs inception in train.score.features, which has clip",
                "fid needs 50 images, and train.score.prompts is 49",
            ],
        ),
        (
            ["train.score.best_by=retrieval_at_1"],
            ["retrieval_at_1 needs evaluate.concept_column and evaluate.style_column"],
        ),
        (
            [
                "train.score.best_by=retrieval_at_5",
                "train.score.retrieval_columns=[a,b]",
                "train.score.features=[]",
                "download.keep_columns=[a]",
            ],
            ["b is not carried into the encodings", "compares image features, but there are none"],
        ),
        (
            ["train.score.features=[inception:/nowhere.pth]"],
            ["train.score.features: "],
        ),
    ],
)
def test_what_cannot_be_computed_is_named_all_at_once(
    tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    messages = problems(tmp_path, *overrides)
    assert len(messages) == len(expected), messages
    for message, part in zip(messages, expected, strict=True):
        assert part in message
        assert message.startswith("train.score")


def test_without_scores_nothing_is_asked_of_them(tmp_path: Path) -> None:
    config = load_config(TINY, [*small(tmp_path), "train.score.features=[inception:/nowhere.pth]"])
    assert not list(score_problems(config))


def test_too_few_held_out_pairs_for_a_distance_are_refused_before_the_training(
    tmp_path: Path,
) -> None:
    config = make_workspace(tmp_path / "data")
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings
    for best_by, is_refused in (("clip_score", False), ("cmmd", True)):
        score = config.train.score.model_copy(update={"every": 5, "best_by": best_by})
        train = config.train.model_copy(update={"score": score})
        scoring = config.model_copy(update={"train": train})
        if not is_refused:
            check_best(scoring, encodings)
            continue
        with pytest.raises(ConfigError, match="cmmd needs 50 images, and only 24 pairs are held"):
            train_on_nodes(
                {"encode": encodings},
                RunInputs(scoring),
                RememberingTracker(),
                tmp_path / "model",
                force=False,
            )
