"""Options that the image commands share: how to sample, with which model, and bounds of numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter

from flows.cli.model_source import Model, ModelSource
from flows.terminal.console import errors
from tld_model.config import (
    LARGEST_SEED,
    MOST_GUIDANCE,
    MOST_STEPS,
    GuidanceScale,
    SamplingSettings,
    SolverChoice,
    SolverName,
    StepCount,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.config.run import RunConfig


def _in_place_of(setting: str, kind: object) -> Parameter:
    """An option that replaces a setting of `evaluate` and has its help."""
    description = get_args(kind)[1].description
    return Parameter(help=f"{description} [default: evaluate.{setting}]")


Steps = Annotated[int | None, _in_place_of("steps", StepCount)]
Guidance = Annotated[float | None, _in_place_of("guidance", GuidanceScale)]
Solver = Annotated[SolverName | None, _in_place_of("solver", SolverChoice)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The value of an option, and the smallest and largest value that it may have."""

    option: str
    value: float | None
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How to sample, and with which model."""

    steps: Steps = None
    guidance: Guidance = None
    solver: Solver = None
    negative: Annotated[str, Parameter(help="Negative prompt: what the image should not show.")] = (
        ""
    )
    model: Model = None

    def sampling(self, settings: RunConfig) -> SamplingSettings:
        """The sampling settings of the run, changed by these options."""
        default = settings.evaluate.sampling
        return replace(
            default,
            steps=self.steps or default.steps,
            guidance=self.guidance or default.guidance,
            solver=self.solver or default.solver,
        )

    def problems(self) -> list[str]:
        """One line for each option that is out of bounds."""
        return bound_problems(
            Bounds("--steps", self.steps, 1, MOST_STEPS),
            Bounds("--guidance", self.guidance, 1, MOST_GUIDANCE),
        )

    def metadata(self, settings: RunConfig, source: ModelSource) -> dict[str, Any]:
        """The sampling part of a PNG's metadata. The PNG may be passed on, so it holds the digest
        of the model, not its path."""
        from data_catalog.storage.digests import file_digest

        return {
            **asdict(self.sampling(settings)),
            "negative": self.negative,
            "model": file_digest(source.denoiser),
        }


DEFAULT_SAMPLING = SamplingOptions()
Sampling = Annotated[SamplingOptions, Parameter(name="*")]


def seed_bounds(option: str, seed: int | None) -> Bounds:
    """The bounds of a random seed."""
    return Bounds(option, seed, 0, LARGEST_SEED)


def bound_problems(*options: Bounds) -> list[str]:
    """One line for each option that is set and out of bounds."""
    return [
        f"{option.option} must be from {option.least} to {option.most}, got {option.value}"
        for option in options
        if option.value is not None and not option.least <= option.value <= option.most
    ]


def prompt_problems(prompts: Sequence[str]) -> list[str]:
    """A line if one of the prompts is empty."""
    if all(prompt.strip() for prompt in prompts):
        return []
    return ["a prompt is empty; describe what the image should show"]


def missing_files(*paths: Path | None) -> list[str]:
    """One line for each path that is set and is no file."""
    return [f"there is no file {path}" for path in paths if path is not None and not path.is_file()]


MOST_OVERLAP = 4096  # pixels; the model's size sets a closer bound
Overlap = Annotated[
    int | None,
    Parameter(
        help="Pixels that a window shares with the existing image. [default: 3/8 of the model's "
        "size]"
    ),
]


def last_of(canvases: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The last canvas; meanwhile the terminal shows which window is being painted."""
    with errors.status("window 1 …") as status:
        for done, canvas in enumerate(canvases, 1):
            status.update(f"window {done + 1} …")
            last = canvas
    return last


def file_identity(path: Path | None) -> dict[str, str] | None:
    """A file in the metadata of a PNG: its name and the digest of its content."""
    if path is None:
        return None
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
