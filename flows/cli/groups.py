"""Groups of commands in `--help`, and the arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

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
        help="Settings of the run: a YAML file, or the name of a shipped one: emoji, "
        "modern-250m, original-100m, short-prompts, tiny, tld-100m."
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
Force = Annotated[
    bool, Parameter(negative="", help="Run the stage again even if its output is fresh.")
]
