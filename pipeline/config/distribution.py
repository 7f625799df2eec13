"""The distribution of tld: its name on package indexes, its version, and its extras.

The command is `tld`, but on package indexes that name belongs to another project.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

NAME = "tld-diffusion"
_ROOT = Path(__file__).parents[2]
_GIT_TIMEOUT_S = 5.0


def tld_version() -> str:
    """The version of tld. A checkout that is not installed has it in its pyproject.toml alone."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return str(_project()["version"])


@cache
def tld_commit() -> str:
    """The git commit of the checkout that tld runs from, with "-dirty" if its files were changed;
    "" if tld is installed without its repository, or git cannot say."""
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # Variables such as GIT_DIR would name another repository.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if answer.returncode else answer.stdout.strip()


def tld_version_and_commit() -> str:
    """The version of tld with the beginning of its commit, if it runs from a checkout."""
    commit, dash, dirty = tld_commit().partition("-")
    return f"{tld_version()} ({commit[:12]}{dash}{dirty})" if commit else tld_version()


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
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project
