"""Settings of the evaluation: how held-out captions are sampled, and which scores a model must
reach."""

from __future__ import annotations

from pydantic import (
    Field,
    field_validator,
)

from data_catalog.scores import SCORES
from pipeline.config.section import Section
from tld_model.config import LARGEST_SEED, MOST_GUIDANCE, MOST_STEPS, SamplingSettings, SolverName


class EvaluateConfig(Section):
    """model -> report"""

    prompts: int = Field(256, ge=1, le=1_000_000)
    """How many held-out captions to sample, fewer where there are fewer."""
    steps: int = Field(20, ge=1, le=MOST_STEPS)
    """Sampling steps."""
    solver: SolverName = "dpmpp_2m"
    """'dpmpp_2m' (Lu et al., 2022) and 'heun' (Karras et al., 2022) are of second order, and 'heun'
    asks the model twice a step; 'euler' and 'ddim' are of first order, and on this path one and the
    same."""
    guidance: float = Field(4.5, ge=1, le=MOST_GUIDANCE)
    """Guidance scale; 1 is none, and costs half."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels, low and high of [0, 1], between which guidance applies (Kynkäänniemi et al.,
    2024, who find that it harms at high ones); a step outside costs half."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Of the initial noise."""
    ema: int = Field(0, ge=0)
    """Which average of train.ema_decay to evaluate and sample from; 0 is the first."""
    grid: int = Field(36, ge=1, le=400)
    """Pictures in grid.png."""
    require: dict[str, float] = Field({})
    """Scores that the run must reach, as {prompt_accuracy: 0.8}; for losses, distances and
    latency_s (seconds of one picture), the most they may be."""
    price_per_hour: float | None = Field(None, ge=0)
    """What an hour of this machine costs you; the report then tells the price of the run. Changes
    nothing else."""
    device: str = "auto"
    """'auto', 'cpu', 'cuda', 'cuda:1'. Changes speed only."""
    batch_size: int = Field(64, ge=1, le=65_536)
    """Samples at once. Changes speed only."""

    @property
    def sampling(self) -> SamplingSettings:
        """How this run draws, unless it is told otherwise."""
        return SamplingSettings(self.steps, self.guidance, self.solver, self.guidance_interval)

    @field_validator("guidance_interval")
    @classmethod
    def _interval_has_a_length(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError("give two noise levels, the lower first, from 0 to 1, as [0.2, 0.8]")
        return interval

    @field_validator("require")
    @classmethod
    def _scores_exist(cls, require: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in require if name not in SCORES]:
            raise ValueError(f"no such score: {', '.join(unknown)}; known: {', '.join(SCORES)}")
        return require
