"""Settings of the scores during training: what they take from the report, and what they count
for."""

from __future__ import annotations

import re

import pytest

from data_catalog.scores import SCORES
from pipeline.config.load import load_config
from pipeline.config.score import CHOOSES_BEST
from pipeline.config.section import ConfigError
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY

BEST = ("train.score.every=5", "train.score.best_by=prompt_accuracy")


def settings(*overrides: str) -> dict[str, object]:
    return RunInputs(load_config(TINY, overrides)).settings("train")


def test_features_and_columns_are_those_of_the_report_unless_set() -> None:
    report = (
        "evaluate.features=[clip,efficientnet-lite0]",
        "evaluate.concept_column=a",
        "evaluate.style_column=b",
    )
    score = load_config(TINY, ["train.score.every=5", *report]).train.score
    assert score.features == ("clip", "efficientnet-lite0")
    assert score.retrieval_columns == ("a", "b")
    own = ("train.score.features=[]", "train.score.retrieval_columns=[c,d]")
    score = load_config(TINY, ["train.score.every=5", *report, *own]).train.score
    assert (score.features, score.retrieval_columns) == ((), ("c", "d"))
    assert load_config(TINY, report).train.score.features is None, "nothing is scored"


def test_only_what_the_best_depends_on_counts() -> None:
    plain = settings()
    assert settings("train.score.every=7", "train.score.prompts=9") == plain
    best = settings(*BEST)
    assert best == plain | {"score": {"best_by": "prompt_accuracy", "every": 5, "prompts": 256}}
    assert settings(*BEST, "evaluate.features=[efficientnet-lite0]", "evaluate.steps=3") == best
    assert settings(*BEST, "train.score.prompts=99") != best
    assert settings(*BEST, "train.score.every=6") != best
    loss = ("train.score.every=5", "train.score.best_by=held_out_loss")
    assert settings(*loss, "train.score.prompts=9") == settings(*loss)
    of_features = settings("train.score.every=5", "train.score.best_by=cmmd")["score"]
    assert of_features == {
        "best_by": "cmmd",
        "every": 5,
        "prompts": 256,
        "features": ["clip"],
        "features_identity": {},
    }


def test_what_chooses_the_best_is_computed_and_has_a_direction() -> None:
    assert {"prompt_accuracy", "frechet_distance", "retrieval_at_1", "held_out_loss"} <= {
        *CHOOSES_BEST
    }
    others = {*SCORES} - {*CHOOSES_BEST}
    assert all("diversity" in name for name in others - {"clip_score_reference", "latency_s"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.score.best_by=cmmd"], "best_by is cmmd, but every is 0"),
        (["train.score.best_by=diversity", BEST[0]], "neither larger nor smaller is better"),
        (["train.score.best_by=quality", BEST[0]], "no such score; known: prompt_accuracy, acc"),
        (["train.score.features=[clip,clip]"], "named more than once: clip"),
        (["evaluate.ema=best"], "evaluate.ema: without train.score.best_by there is no best"),
        (
            ["evaluate.ema=-1"],
            "evaluate.ema: give the number of an average, counted from 0, or best, got -1",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(TINY, overrides)


def test_the_best_average_can_be_chosen() -> None:
    config = load_config(TINY, [*BEST, "evaluate.ema=best", "train.ema_decay=[0.9,0.99]"])
    assert config.evaluate.ema == "best"
    assert config.train.averages == (0, 1, "best")
