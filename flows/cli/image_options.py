"""Options that the image commands share: how to sample, with which model, and input files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter

from flows.cli.like import Like, OtherModel
from flows.cli.model_source import Model
from flows.terminal.console import errors
from flows.terminal.errors import UserError
from tld_model.config import GuidanceScale, SolverChoice, SolverName, StepCount

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.generate.request import InputFile


def _in_place_of(setting: str, kind: object) -> Parameter:
    """An option that replaces a setting of `evaluate` and has its help."""
    description = get_args(kind)[1].description
    return Parameter(help=f"{description} [default: evaluate.{setting}]")


Steps = Annotated[int | None, _in_place_of("steps", StepCount)]
Guidance = Annotated[float | None, _in_place_of("guidance", GuidanceScale)]
Solver = Annotated[SolverName | None, _in_place_of("solver", SolverChoice)]


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How to sample, with which model, and like which image."""

    steps: Steps = None
    guidance: Guidance = None
    solver: Solver = None
    negative: Annotated[
        str | None, Parameter(help="Negative prompt: what the image should not show.")
    ] = None
    model: Model = None
    like: Like = None
    other_model: OtherModel = False

    def changes(self) -> dict[str, Any]:
        """These options as fields of a request; None where one is not set."""
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "solver": self.solver,
            "negative": self.negative,
        }


DEFAULT_SAMPLING = SamplingOptions()
Sampling = Annotated[SamplingOptions, Parameter(name="*")]

NO_PROMPT = "no prompt; write one in quotes, or take those of a PNG with --like"

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


def identify_file(path: Path | None) -> InputFile | None:
    """Name and digest of an input file. Raises UserError if it cannot be read."""
    if path is None:
        return None
    from pipeline.generate.request import InputFile

    try:
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return InputFile.of(path.name, path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
