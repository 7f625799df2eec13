"""Groups of commands in `--help`, and the arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

MAKE, DRAW, JUDGE, SHARE, LOOK_AFTER = map(
    Group.create_ordered, ("Make", "Draw", "Judge", "Share", "Look after")
)

Config = Annotated[Path, Parameter(help="YAML file that describes the run, like conf/tiny.yaml.")]
Overrides = Annotated[
    str,
    Parameter(help="Settings to change, as section.key=value: train.lr=3e-4 evaluate.prompts=64."),
]
Force = Annotated[bool, Parameter(negative="", help="Do it again even where the output is fresh.")]
