"""The name of the distribution, as pyproject.toml and the documentation have it, and its version."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from typing import NoReturn

import pytest

from pipeline.config import distribution
from tests.support.command import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_name_is_that_of_the_project_and_the_command_is_tld() -> None:
    assert PROJECT["name"] == distribution.NAME != "tld"
    assert PROJECT["scripts"] == {"tld": "flows.cli.app:main"}


def test_the_version_is_that_of_the_project() -> None:
    assert distribution.tld_version() == PROJECT["version"]


def test_a_checkout_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(distribution, "version", not_installed)
    assert distribution.tld_version() == PROJECT["version"]


def test_an_extra_is_installed_by_the_name_of_the_distribution() -> None:
    assert distribution.install_command("ray") == "pip install 'tld-diffusion[ray]'"


def test_extras_are_named_as_they_are_declared_and_of_this_distribution() -> None:
    """In documentation and messages an extra of `tld` would install another project."""
    listed = subprocess.run(
        ["git", "grep", "-hoE", r"\b[a-z-]*\[[a-z,]+\]['\"`]"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    mentioned = re.findall(r"^(tld[a-z-]*)\[([a-z,]+)\]", listed.stdout, re.MULTILINE)
    assert mentioned
    assert {name for name, _ in mentioned} == {distribution.NAME}
    extras = {extra for _, several in mentioned for extra in several.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])
