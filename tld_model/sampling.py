"""How pictures are sampled: the settings of sampler.py and their names. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SolverName = Literal["dpmpp_2m", "heun", "euler", "ddim"]

MOST_STEPS = 10_000
MOST_GUIDANCE = 1000
LARGEST_SEED = 2**63 - 1  # fits into 64 bits with a sign


@dataclass(frozen=True, slots=True)
class Sampling:
    """From noise to a picture. Pictures that agree in this can share a batch."""

    steps: int = 20
    guidance: float = 4.5  # guidance scale; 1 is none
    solver: SolverName = "dpmpp_2m"
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # noise levels, low and high, between which guidance applies

    @property
    def model_calls(self) -> int:
        """How often a picture asks the model."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps


USUAL = Sampling()
