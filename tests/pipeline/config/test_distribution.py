"""The name of the distribution, as pyproject.toml and the documentation have it, and its version."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path
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


def test_a_checkout_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit() -> str:
        distribution.tld_commit.cache_clear()
        return distribution.tld_commit()

    monkeypatch.setattr(distribution, "_ROOT", tmp_path)
    assert commit() == "", "it is no checkout"
    assert distribution.tld_version_and_commit() == PROJECT["version"]
    git("init", "-q")
    (tmp_path / "a.py").touch()
    git("add", ".")
    git("commit", "-qm", "First")
    monkeypatch.setenv("GIT_DIR", "/another")
    head = git("--git-dir", ".git", "rev-parse", "HEAD")
    assert commit() == head
    (tmp_path / "a.py").write_text("changed")
    assert commit() == f"{head}-dirty"
    shown = f"{PROJECT['version']} ({head[:12]}-dirty)"
    assert distribution.tld_version_and_commit() == shown
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "", "there is no git"
    distribution.tld_commit.cache_clear()


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
