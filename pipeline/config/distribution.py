"""The distribution of tld: its name on package indexes, its version, and its extras.

The command is `tld`, but on package indexes that name belongs to another project.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

NAME = "tld-diffusion"


def tld_version() -> str:
    """The version of tld. A checkout that is not installed has it in its pyproject.toml alone."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return str(_project()["version"])


def requirements() -> list[str]:
    """What tld requires, with the markers of its extras."""
    try:
        return requires(NAME) or []
    except PackageNotFoundError:
        return list(_project()["dependencies"])


def install_command(extra: str) -> str:
    """The command that installs what an extra needs."""
    return f"pip install '{NAME}[{extra}]'"


def _project() -> dict[str, Any]:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project
