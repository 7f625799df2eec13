"""Settings of the optional stage `distill`: a model that samples in a few steps."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.config.evaluate import AverageChoice, EvaluateConfig, RequiredScores
from pipeline.config.launch import LaunchConfig
from pipeline.config.score import ScoreConfig
from pipeline.config.section import NotInFingerprint, Section
from pipeline.config.train import TrainConfig
from tld_model.config import MOST_STEPS, GuidanceScale

_TEACHER_STEPS = 20  # or the next multiple of sample_steps
_OF_A_TRAINING = 10  # parts at whose ends it is validated, sampled and saved, or more often


class DistillConfig(Section):
    """model -> model that samples in a few steps, without guidance. Where no setting here says
    otherwise, it is trained as train says."""

    sample_steps: int = Field(4, ge=1, le=64)
    """Steps in which the distilled model samples. The noise levels from 0.99 to 0 are divided into
    this many segments, and the model learns where the trained model's path ends in each."""
    teacher_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """Sampling steps of the trained model, the teacher, over all segments: a multiple of
    sample_steps. null takes 20, or the next multiple."""
    guidance: GuidanceScale | None = None
    """Guidance scale of the teacher at all noise levels, which becomes part of the distilled model.
    null takes evaluate.guidance."""
    ema: AverageChoice | None = None
    """Which moving average of train.ema_decay is the teacher. null takes evaluate.ema."""
    steps: int = Field(1000, ge=1, le=10**9)
    """Number of optimizer steps, each with train.batch_size pairs. The learning rate rises over the
    first twentieth of them, and falls along a cosine to zero."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate. null takes half of train.lr."""
    require: NotInFingerprint[RequiredScores] = Field({})
    """Scores that the distilled model must reach, as evaluate.require for the trained one."""

    def filled(self, evaluate: EvaluateConfig) -> DistillConfig:
        """The settings with those of the trained model's evaluation where nothing is set."""
        multiples = -(-_TEACHER_STEPS // self.sample_steps)
        defaults = {
            "teacher_steps": multiples * self.sample_steps,
            "guidance": evaluate.guidance,
            "ema": evaluate.ema,
        }
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing)

    def training(self, train: TrainConfig) -> TrainConfig:
        """The settings of the distillation's training, on this machine alone, without what belongs
        to the training of the teacher."""
        own = TrainConfig.model_fields
        launch = LaunchConfig(processes=train.launch.processes)
        reset = (
            *("lr_schedule", "decay_steps", "init_from", "continue_from", "ema_warmup", "mix"),
            *("contrastive", "noise_levels", "noise_location", "noise_scale", "noise_shift"),
        )
        most = max(1, self.steps // _OF_A_TRAINING)
        changes = {
            **{name: own[name].get_default() for name in reset},
            "steps": self.steps,
            "lr": self.lr or train.lr / 2,
            "warmup_steps": min(train.warmup_steps, self.steps // 20),
            "condition_dropout": 0.0,
            "noise_alpha": 1.0,  # with noise_beta 1 all segments alike
            "noise_beta": 1.0,
            "score": ScoreConfig(),
            "launch": launch,
            "sharding": train.sharding if launch.ranks > 1 else "none",
            "checkpoint_every": min(train.checkpoint_every, most),
            "validate_every": min(train.validate_every, most),
            "sample_every": min(train.sample_every, most),
        }
        return type(train).model_validate(dict(train) | changes)

    def evaluation(self, evaluate: EvaluateConfig) -> EvaluateConfig:
        """The settings of the distilled model's evaluation."""
        changes = {
            "model": "distilled",
            "steps": self.sample_steps,
            "solver": "euler",
            "guidance": 1.0,
            "guidance_interval": (0.0, 1.0),
            "ema": 0,
            "require": self.require,
        }
        return type(evaluate).model_validate(dict(evaluate) | changes)

    @model_validator(mode="after")
    def _segments_have_equal_steps(self) -> DistillConfig:
        steps, each = self.teacher_steps, self.sample_steps
        if steps is not None and steps % each:
            raise ValueError(
                f"teacher_steps {steps} is not a multiple of sample_steps {each}; set "
                f"teacher_steps={-(-steps // each) * each}, or leave it out"
            )
        return self
