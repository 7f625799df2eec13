"""Settings of the scores during training, and of the choice of the best average by one of them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from data_catalog.feature_names import FeatureChoice, parse_features
from data_catalog.scores import SCORES
from pipeline.config.paths import NamedWeights
from pipeline.config.section import Section

HELD_OUT_LOSS = "held_out_loss"
# What a scoring computes and has a direction.
CHOOSES_BEST = tuple(
    name
    for name, score in SCORES.items()
    if score.higher_is_better is not None and name != "latency_s"
)


class ScoreConfig(Section):
    """Scores during training."""

    every: int = Field(0, ge=0, le=10**9)
    """Steps between scorings. A scoring samples held-out captions with the first moving average, in
    20 steps of dpmpp_2m with guidance 3, and logs scores of the report beside the held-out loss.
    The last step is scored too. 0 scores nothing."""
    prompts: int = Field(256, ge=1, le=1_000_000)
    """Number of held-out captions to sample; all of them if there are fewer."""
    features: tuple[NamedWeights, ...] | None = None
    """Image features of the distances, as in evaluate.features; retrieval is on the first. With []
    there are no distances and no retrieval. [default: evaluate.features]"""
    retrieval_columns: tuple[str, str] | None = None
    """Columns of concept and style for retrieval_at_1 and retrieval_at_5. [default:
    evaluate.concept_column and evaluate.style_column]"""
    best_by: str | None = None
    """Score by which the best average is chosen, for example prompt_accuracy or held_out_loss: the
    first moving average of the scored step with the best value is kept beside the model, and
    evaluate.ema=best chooses it."""

    @property
    def feature_choices(self) -> tuple[FeatureChoice, ...]:
        """The image features, in the order of the setting."""
        return tuple(parse_features(text) for text in self.features or ())

    @property
    def best_by_retrieval(self) -> bool:
        """Whether retrieval chooses the best."""
        return bool(self.best_by and self.best_by.startswith("retrieval"))

    @property
    def features_of_best(self) -> tuple[FeatureChoice, ...]:
        """The image features on which best_by depends: of retrieval all, because it is on the first
        of those that can be computed."""
        if self.best_by is None or self.best_by_retrieval:
            return self.feature_choices if self.best_by else ()
        needed = SCORES[self.best_by].features
        return tuple(choice for choice in self.feature_choices if choice.name == needed)

    def is_due(self, step: int, last: int) -> bool:
        """Whether a step of a training is scored."""
        return self.every > 0 and (step == last or step % self.every == 0)

    def filled(self, **defaults: Any) -> ScoreConfig:
        """The settings with those of the report where nothing is set."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing)

    @field_validator("best_by")
    @classmethod
    def _chooses(cls, best_by: str | None) -> str | None:
        if best_by is None or best_by in CHOOSES_BEST:
            return best_by
        if best_by in SCORES:
            why = "a scoring does not compute it, or neither larger nor smaller is better"
            raise ValueError(f"cannot choose the best: {why}; known: {', '.join(CHOOSES_BEST)}")
        raise ValueError(f"no such score; known: {', '.join(CHOOSES_BEST)}")

    @field_validator("features")
    @classmethod
    def _features_exist(cls, features: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = [parse_features(text).name for text in features or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"named more than once: {', '.join(twice)}; scores go by these names")
        return features

    @model_validator(mode="after")
    def _best_is_of_scored_steps(self) -> ScoreConfig:
        if self.best_by and not self.every:
            raise ValueError(
                f"best_by is {self.best_by}, but every is 0, so that no step is scored; set "
                "train.score.every"
            )
        return self
