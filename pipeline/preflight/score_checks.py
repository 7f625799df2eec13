"""Preflight checks of the scores during training: whether they, and the one that chooses the best
average, can be computed."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.feature_names import CLIP
from data_catalog.scores import DISTANCES, FEWEST_IMAGES, SCORES
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.manifest import Manifest
from pipeline.config.feature_weights import weights_problem
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.dataset.split import split_pairs


def score_problems(config: RunConfig) -> Iterator[str]:
    """Settings of train.score that cannot be met by this run's encodings and prompts."""
    if not config.train.score.every:
        return
    for check in (_weights, _columns, _grading, _clip, _features, _prompts, _any_score):
        yield from check(config)


def check_best(config: RunConfig, encodings: Manifest) -> None:
    """Check the choice of the best again before the training, when the number of held-out pairs is
    known. Raises ConfigError if it is by a distance and too few pairs are held out for one."""
    best_by = config.train.score.best_by
    if best_by not in DISTANCES:
        return
    held_out = len(split_pairs(encodings, config.train.held_out_fraction).held_out)
    if held_out < FEWEST_IMAGES:
        raise ConfigError(
            f"train.score.best_by: {best_by} needs {FEWEST_IMAGES} images, and only {held_out} "
            "pairs are held out of training; raise train.held_out_fraction, mark more rows "
            "'held_out' in download.split_column, or choose another score"
        )


def _weights(config: RunConfig) -> Iterator[str]:
    """Those of evaluate.features are checked with that setting."""
    for choice in config.train.score.feature_choices:
        if choice not in config.evaluate.feature_choices and (problem := weights_problem(choice)):
            yield f"train.score.features: {problem}"


def _columns(config: RunConfig) -> Iterator[str]:
    keep, score, evaluate = config.download.keep_columns, config.train.score, config.evaluate
    columns = score.retrieval_columns or ()
    missing = [name for name in columns if name not in keep]
    if missing and columns != (evaluate.concept_column, evaluate.style_column):
        yield (
            f"train.score.retrieval_columns: {', '.join(missing)} is not carried into the "
            f"encodings; set download.keep_columns=[{', '.join(dict.fromkeys([*keep, *columns]))}]"
        )
    if score.best_by_retrieval and not columns:
        yield (
            f"train.score.best_by: {score.best_by} needs evaluate.concept_column and "
            "evaluate.style_column, or train.score.retrieval_columns"
        )


def _grading(config: RunConfig) -> Iterator[str]:
    best_by = config.train.score.best_by
    if best_by and "accuracy" in best_by and config.download.urls != shapes.NAME:
        yield (
            f"train.score.best_by: {best_by} is available only for the built-in data set "
            f"{shapes.NAME!r}"
        )


def _clip(config: RunConfig) -> Iterator[str]:
    best_by = config.train.score.best_by
    if best_by and SCORES[best_by].needs_clip and not config.encode.clip:
        yield f"train.score.best_by: {best_by} needs CLIP, but encode.clip is null"


def _features(config: RunConfig) -> Iterator[str]:
    score = config.train.score
    needed = score.best_by and SCORES[score.best_by].features
    names = [choice.name for choice in score.feature_choices]
    if needed and needed not in names:
        yield (
            f"train.score.best_by: {score.best_by} needs {needed} in train.score.features, which "
            f"has {', '.join(names) or 'none'}"
        )
    computed = [name for name in names if name != CLIP or config.encode.clip]
    if score.best_by_retrieval and score.retrieval_columns and not computed:
        yield (
            f"train.score.best_by: {score.best_by} compares image features, but there are none: "
            f"encode.clip is {config.encode.clip}, and train.score.features has "
            f"{', '.join(names) or 'none'}"
        )


def _prompts(config: RunConfig) -> Iterator[str]:
    score = config.train.score
    if score.best_by in DISTANCES and score.prompts < FEWEST_IMAGES:
        yield (
            f"train.score.best_by: {score.best_by} needs {FEWEST_IMAGES} images, and "
            f"train.score.prompts is {score.prompts}; set train.score.prompts={FEWEST_IMAGES} or "
            "more"
        )


def _any_score(config: RunConfig) -> Iterator[str]:
    """Something must score the samples."""
    names = [choice.name for choice in config.train.score.feature_choices]
    if not config.encode.clip and {*names} <= {CLIP} and config.download.urls != shapes.NAME:
        yield (
            "train.score: nothing can score samples, because encode.clip is null and "
            f"train.score.features has {', '.join(names) or 'none'}; choose other features, or "
            "set train.score.every=0"
        )
