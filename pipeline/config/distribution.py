"""The distribution of tld: its name on package indexes, its version, and its extras.

The command is `tld`, but on package indexes that name belongs to another project.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAME = "tld-diffusion"


def tld_version() -> str:
    """The version of tld. A checkout that is not installed has it in its pyproject.toml alone."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def install_command(extra: str) -> str:
    """The command that installs what an extra needs."""
    return f"pip install '{NAME}[{extra}]'"
