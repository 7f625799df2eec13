"""Groups of commands in `--help`, and the arguments that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from flows.terminal.errors import UserError
from flows.terminal.first_sign import end_first_sign
from flows.terminal.verbosity import choose_verbosity

TRAIN, GENERATE, MEASURE, PUBLISH, MANAGE = map(
    Group.create_ordered,
    (
        "Train a model",
        "Generate images",
        "Compare and measure",
        "Publish a model",
        "Manage runs and data",
    ),
)

Config = Annotated[
    Path,
    Parameter(
        help="Settings of the run: a YAML file; the name of a shipped one: emoji, modern-250m, "
        "original-100m, short-prompts, tiny, tld-100m; or the name that tld run --name gave to a "
        "run in the workspace data."
    ),
]
Overrides = Annotated[
    str,
    Parameter(
        help="Settings to change for this command, as section.key=value: "
        "train.lr=3e-4 evaluate.prompts=64."
    ),
]
WordsWithPrompts = Annotated[
    str,
    Parameter(
        help="Prompts, each in quotes, and settings to change for this command, as "
        "section.key=value."
    ),
]


@dataclass(frozen=True, slots=True)
class Verbosity:
    """How much a command that runs stages prints."""

    quiet: Annotated[
        bool,
        Parameter(negative="", help="Print only warnings, errors and the final summary."),
    ] = False
    verbose: Annotated[
        bool, Parameter(negative="", help="Print logs of libraries too, and tracebacks of errors.")
    ] = False

    def choose(self) -> None:
        """Make it that of this process. Raises UserError if it contradicts itself."""
        if self.quiet and self.verbose:
            raise UserError("--quiet prints less and --verbose more: choose one of them")
        choose_verbosity(quiet=self.quiet, verbose=self.verbose)
        if self.quiet:
            end_first_sign()


DEFAULT_VERBOSITY = Verbosity()
Output = Annotated[Verbosity, Parameter(name="*")]
Force = Annotated[
    bool, Parameter(negative="", help="Run the stage again even if its output is fresh.")
]
