"""Evaluation settings: how held-out captions are sampled, and which scores a model must
reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from data_catalog.feature_names import CLIP, FeatureChoice, parse_features
from data_catalog.model_files import BEST, Average
from data_catalog.scores import SCORES, score_on
from pipeline.config.paths import NamedWeights
from pipeline.config.section import ChangesNoOutput, Section, SpeedOnly
from tld_model.config import (
    DEFAULT_SAMPLING,
    LARGEST_SEED,
    GuidanceInterval,
    GuidanceScale,
    Precision,
    SamplingSettings,
    SolverChoice,
    StepCount,
)


def _average(choice: object) -> object:
    """Refuse what is no average here, so that only one problem of two kinds of values is told."""
    counts = isinstance(choice, int) and not isinstance(choice, bool) and choice >= 0
    if counts or choice in (None, BEST):
        return choice
    raise ValueError(f"give the number of an average, counted from 0, or {BEST}")


def _known_scores(require: dict[str, float]) -> dict[str, float]:
    if unknown := [name for name in require if name not in SCORES]:
        raise ValueError(f"no such score: {', '.join(unknown)}; known: {', '.join(SCORES)}")
    return require


AverageChoice = Annotated[
    Average,
    BeforeValidator(_average),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": BEST}]}),
]
RequiredScores = Annotated[dict[str, float], AfterValidator(_known_scores)]


class EvaluateConfig(Section):
    """model -> report"""

    prompts: int = Field(256, ge=1, le=1_000_000)
    """Number of held-out captions to sample; all of them if there are fewer."""
    steps: StepCount = DEFAULT_SAMPLING.steps
    solver: SolverChoice = DEFAULT_SAMPLING.solver
    guidance: GuidanceScale = DEFAULT_SAMPLING.guidance
    guidance_interval: GuidanceInterval = DEFAULT_SAMPLING.guidance_interval
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the initial noise."""
    model: Literal["trained", "distilled"] = "trained"
    """The model that this stage evaluates, and that other commands use: the one that train makes,
    or the one that distill makes of it. With 'distilled', steps, guidance, guidance_interval,
    solver, ema and require are those of distill."""
    ema: AverageChoice = 0
    """Which moving average of train.ema_decay to evaluate and sample from; 0 is the first, and best
    is that of the best scored step (train.score.best_by)."""
    grid: int = Field(36, ge=1, le=400)
    """Number of samples in grid.png."""
    concept_column: str | None = None
    """Column of download.keep_columns that says what an image shows. With style_column it gives the
    scores retrieval_at_1 and retrieval_at_5: whether the real image of the caption's style that is
    nearest to a sample shows its concept."""
    style_column: str | None = None
    """Column of download.keep_columns that says in which style an image shows it."""
    features: tuple[NamedWeights, ...] = Field((CLIP,), min_length=1)
    """Image features on which distances to the held-out images and diversity are computed: clip
    (encode.clip), efficientnet-lite0, inception (FID's) or inception:PATH of its weights, and
    dinov2:NAME_OR_PATH. Diversity, retrieval and the nearest training images are on the first."""
    require: RequiredScores = Field({})
    """Scores that the model must reach, for example {prompt_accuracy: 0.8}. For losses, distances
    and latency_s (seconds per image) the number is an upper limit. A distance needs 50 prompts."""
    price_per_hour: ChangesNoOutput[float | None] = Field(None, ge=0)
    """Price of this machine per hour, from which the report computes the price of the run, and
    --dry-run that of what is left."""
    device: SpeedOnly[str] = "auto"
    """Device for sampling and scoring: 'auto', 'cpu', 'cuda' or 'cuda:1'."""
    precision: Precision = "auto"
    batch_size: SpeedOnly[int] = Field(64, ge=1, le=65_536)
    """Samples per batch."""

    @property
    def sampling(self) -> SamplingSettings:
        """The sampling settings of this run, used unless a command overrides them."""
        return SamplingSettings(self.steps, self.guidance, self.solver, self.guidance_interval)

    @property
    def require_setting(self) -> str:
        """The setting from which `require` comes, for messages."""
        return f"{'distill' if self.model == 'distilled' else 'evaluate'}.require"

    @property
    def feature_choices(self) -> tuple[FeatureChoice, ...]:
        """The image features, in the order of the setting."""
        return tuple(parse_features(text) for text in self.features)

    @model_validator(mode="after")
    def _columns_come_together(self) -> EvaluateConfig:
        if (self.concept_column is None) != (self.style_column is None):
            raise ValueError(
                "concept_column and style_column need each other; set both to columns of "
                "download.keep_columns, or neither"
            )
        return self

    @field_validator("features")
    @classmethod
    def _features_exist(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        names = [parse_features(text).name for text in features]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"named more than once: {', '.join(twice)}; scores go by these names")
        return features

    @model_validator(mode="after")
    def _required_scores_are_computed(self) -> EvaluateConfig:
        names = [choice.name for choice in self.feature_choices]
        for score in self.require:
            needed = SCORES[score].features
            if needed and needed not in names:
                raise ValueError(f"require: {score} needs {needed} in evaluate.features")
            if needed and score == score_on("diversity", needed) and needed != names[0]:
                raise ValueError(f"require: {score} needs {needed} first in evaluate.features")
        return self
