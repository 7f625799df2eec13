"""Names of the solvers of sampler.py. Imports no torch."""

from __future__ import annotations

from typing import Literal

SolverName = Literal["dpmpp_2m", "heun", "euler", "ddim"]
