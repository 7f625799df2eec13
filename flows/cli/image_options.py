"""What the commands share that draw from more than a prompt: how to sample, with which model, into
which file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.model_source import Model, ModelSource
from flows.terminal.errors import UserError
from tld_model.config import LARGEST_SEED, MOST_GUIDANCE, MOST_STEPS, SamplingSettings, SolverName

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the greatest value that an option may have."""

    option: str
    given: float | None
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class DrawingOptions:
    """How to sample, and with which model."""

    steps: Annotated[int | None, Parameter(help="Sampling steps; evaluate.steps without it.")] = (
        None
    )
    guidance: Annotated[
        float | None, Parameter(help="Guidance scale; evaluate.guidance without it.")
    ] = None
    solver: Annotated[SolverName | None, Parameter(help="evaluate.solver without it.")] = None
    negative: Annotated[str, Parameter(help="A prompt that guidance leads away from.")] = ""
    model: Model = None

    def sampling(self, settings: RunConfig) -> SamplingSettings:
        usual = settings.evaluate.sampling
        steps, guidance, solver = (
            self.steps or usual.steps,
            self.guidance or usual.guidance,
            self.solver or usual.solver,
        )
        return replace(usual, steps=steps, guidance=guidance, solver=solver)

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return bound_problems(
            Bounds("--steps", self.steps, 1, MOST_STEPS),
            Bounds("--guidance", self.guidance, 1, MOST_GUIDANCE),
        )

    def told(self, settings: RunConfig, chosen: ModelSource) -> dict[str, Any]:
        """For the settings in a PNG, which may go to strangers: the model by its digest, not its
        path."""
        from data_catalog.storage.digests import file_digest

        return {
            **asdict(self.sampling(settings)),
            "negative": self.negative,
            "model": file_digest(chosen.denoiser),
        }


AS_USUAL = DrawingOptions()
Drawing = Annotated[DrawingOptions, Parameter(name="*")]


def seed_bounds(option: str, seed: int | None) -> Bounds:
    """Those of a seed of noise."""
    return Bounds(option, seed, 0, LARGEST_SEED)


def bound_problems(*options: Bounds) -> list[str]:
    """Which of the given options are out of bounds."""
    return [
        f"{one.option} must be from {one.least} to {one.most}, got {one.given}"
        for one in options
        if one.given is not None and not one.least <= one.given <= one.most
    ]


def prompt_problems(prompts: Sequence[str]) -> list[str]:
    """What keeps prompts from being drawn."""
    return (
        []
        if all(prompt.strip() for prompt in prompts)
        else ["a prompt is empty; say what the picture should show"]
    )


def lacking_files(*paths: Path | None) -> list[str]:
    """Which of the given files are not there."""
    return [f"there is no file {path}" for path in paths if path is not None and not path.is_file()]


def refuse(problems: Sequence[str]) -> None:
    """Raise UserError with all of them, if any."""
    if problems:
        raise UserError("cannot draw:\n" + "\n".join(f"  {problem}" for problem in problems))
