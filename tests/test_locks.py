"""The lock files list all that is needed: they are installed without looking for more."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# The lock files say why. pip comes with the environment.
LEFT_OUT = {"dataclasses", "pip", "rfc3987-syntax"}
# What torch requires with CUDA is installed after the lock, with torch's own versions.
OF_CUDA = ("nvidia-", "cuda-", "triton")


def test_the_locks_are_what_the_declared_packages_need() -> None:
    run, dev = _locked("requirements.lock"), _locked("requirements-dev.lock")
    assert not run & dev, "a package stands in one lock file"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _needed(project, "cluster") - LEFT_OUT - {_NAME} <= run
    everything = _needed(project, "cluster", "dev") - LEFT_OUT - {_NAME}
    assert everything <= run | dev
    assert run | dev <= everything | {"triton"} | _of_other_pythons(), "nothing needs these"


def test_the_locked_versions_are_among_those_that_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {
        canonicalize_name(line.name): str(line.specifier).removeprefix("==")
        for name in ("requirements.lock", "requirements-dev.lock")
        for line in _lines(name)
    }
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, chain.from_iterable(declared)):
        if (version := locked.get(canonicalize_name(requirement.name))) is not None:
            assert requirement.specifier.contains(version), (
                f"{requirement}, but {version} is locked"
            )


_NAME = "tld-diffusion"


def _locked(name: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in _lines(name)}


def _lines(name: str) -> Iterator[Requirement]:
    for line in (ROOT / name).read_text().splitlines():
        if not line.startswith("#"):
            yield Requirement(line)


def _of_other_pythons() -> set[str]:
    return {
        canonicalize_name(requirement.name)
        for name in ("requirements.lock", "requirements-dev.lock")
        for requirement in _lines(name)
        if requirement.marker and not requirement.marker.evaluate()
    }


def _needed(project: dict[str, Any], *extras: str) -> set[str]:
    """The packages that the project and these extras need, and those that these need, …"""
    optional = project["optional-dependencies"]
    todo = [Requirement(line) for line in project["dependencies"]]
    todo += [Requirement(line) for extra in extras for line in optional[extra]]
    needed: set[str] = set()
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if str(requirement) in seen or (name.startswith(OF_CUDA) and name != "nvidia-ml-py"):
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        seen.add(str(requirement))
        needed.add(name)
        if name == _NAME:
            todo += [Requirement(line) for extra in requirement.extras for line in optional[extra]]
        elif name not in LEFT_OUT:
            todo += _required_by(name, requirement.extras)
    return needed


def _required_by(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            requirement.marker = None
            yield requirement
