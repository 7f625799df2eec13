"""Evaluation settings: how held-out captions are sampled, and which scores a model must
reach."""

from __future__ import annotations

from pydantic import (
    Field,
    field_validator,
)

from data_catalog.scores import SCORES
from pipeline.config.section import NotInFingerprint, Section, SpeedOnly
from tld_model.config import LARGEST_SEED, MOST_GUIDANCE, MOST_STEPS, SamplingSettings, SolverName


class EvaluateConfig(Section):
    """model -> report"""

    prompts: int = Field(256, ge=1, le=1_000_000)
    """Number of held-out captions to sample; all of them if there are fewer."""
    steps: int = Field(20, ge=1, le=MOST_STEPS)
    """Number of sampling steps."""
    solver: SolverName = "dpmpp_2m"
    """ODE solver. 'dpmpp_2m' (Lu et al., 2022) and 'heun' (Karras et al., 2022) are of second
    order; 'heun' evaluates the model twice per step. 'euler' and 'ddim' are of first order and, on
    this path, identical."""
    guidance: float = Field(4.5, ge=1, le=MOST_GUIDANCE)
    """Guidance scale. 1 switches guidance off and halves the cost."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest noise level, in [0, 1], at which guidance applies. Kynkäänniemi et al.
    (2024) find that guidance harms at high noise levels. A step outside costs half."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the initial noise."""
    ema: int = Field(0, ge=0)
    """Which moving average of train.ema_decay to evaluate and sample from; 0 is the first."""
    grid: int = Field(36, ge=1, le=400)
    """Number of samples in grid.png."""
    require: dict[str, float] = Field({})
    """Scores that the model must reach, for example {prompt_accuracy: 0.8}. For losses, distances
    and latency_s (seconds per image) the number is an upper limit."""
    price_per_hour: NotInFingerprint[float | None] = Field(None, ge=0)
    """Price of this machine per hour, from which the report computes the price of the run. Changes
    nothing else."""
    device: SpeedOnly[str] = "auto"
    """Device for sampling and scoring: 'auto', 'cpu', 'cuda' or 'cuda:1'."""
    batch_size: SpeedOnly[int] = Field(64, ge=1, le=65_536)
    """Samples per batch."""

    @property
    def sampling(self) -> SamplingSettings:
        """The sampling settings of this run, used unless a command overrides them."""
        return SamplingSettings(self.steps, self.guidance, self.solver, self.guidance_interval)

    @field_validator("guidance_interval")
    @classmethod
    def _interval_has_a_length(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError(
                "give two noise levels between 0 and 1, the lower first, as [0.2, 0.8]"
            )
        return interval

    @field_validator("require")
    @classmethod
    def _scores_exist(cls, require: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in require if name not in SCORES]:
            raise ValueError(f"no such score: {', '.join(unknown)}; known: {', '.join(SCORES)}")
        return require
