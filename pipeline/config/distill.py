"""Settings of the optional stage `distill`: a model that samples in a few steps."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.config.evaluate import AverageChoice, EvaluateConfig, RequiredScores
from pipeline.config.launch import LaunchConfig
from pipeline.config.score import ScoreConfig
from pipeline.config.section import NotInFingerprint, Section
from pipeline.config.train import TrainConfig
from tld_model.config import MOST_STEPS, GuidanceScale


class DistillConfig(Section):
    """model -> model that samples in a few steps, without guidance. Where no setting here says
    otherwise, it is trained as train says."""

    sample_steps: int = Field(4, ge=1, le=64)
    """Steps in which the distilled model samples. The noise levels from 0.99 to 0 are divided into
    this many segments, and the model learns where the trained model's path ends in each."""
    teacher_steps: int = Field(20, ge=1, le=MOST_STEPS)
    """Sampling steps of the trained model, the teacher, over all segments. It must be a multiple of
    sample_steps."""
    guidance: GuidanceScale | None = None
    """Guidance scale of the teacher at all noise levels, which becomes part of the distilled model.
    null takes evaluate.guidance."""
    steps: int = Field(1000, ge=1, le=10**9)
    """Number of optimizer steps, each with train.batch_size pairs."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate, from which a cosine leads to zero. null takes half of train.lr."""
    warmup_steps: int = Field(50, ge=0, le=10**9)
    """Steps over which the learning rate rises linearly to lr."""
    ema: AverageChoice | None = None
    """Which moving average of train.ema_decay is the teacher. null takes evaluate.ema."""
    require: NotInFingerprint[RequiredScores] = Field({})
    """Scores that the distilled model must reach, as evaluate.require for the trained one."""

    def training(self, train: TrainConfig) -> TrainConfig:
        """The settings of the distillation's training, on this machine."""
        return train.model_copy(
            update={
                "steps": self.steps,
                "lr": self.lr or train.lr / 2,
                "lr_schedule": "cosine",
                "decay_steps": 0,
                "warmup_steps": self.warmup_steps,
                "init_from": None,
                "continue_from": None,
                "condition_dropout": 0.0,
                "contrastive": 0.0,
                "score": ScoreConfig(),
                # All segments alike.
                "noise_levels": "beta",
                "noise_alpha": 1.0,
                "noise_beta": 1.0,
                "noise_shift": 1.0,
                "launch": LaunchConfig(processes=train.launch.processes),
            }
        )

    def evaluation(self, evaluate: EvaluateConfig) -> EvaluateConfig:
        """The settings of the distilled model's evaluation."""
        return evaluate.model_copy(
            update={
                "model": "distilled",
                "steps": self.sample_steps,
                "solver": "euler",
                "guidance": 1.0,
                "guidance_interval": (0.0, 1.0),
                "ema": 0,
                "require": self.require,
            }
        )

    @model_validator(mode="after")
    def _segments_have_equal_steps(self) -> DistillConfig:
        if self.teacher_steps % self.sample_steps:
            raise ValueError(
                f"teacher_steps {self.teacher_steps} is not a multiple of sample_steps "
                f"{self.sample_steps}"
            )
        return self
