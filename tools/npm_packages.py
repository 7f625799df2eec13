"""Packages of npm: exact versions, checked by their digest and read in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

_FIRST_LINES = 3  # of what npm says of a failure


class PackageError(Exception):
    """A package that cannot be fetched, or is not the one that was asked for."""


class NpmPackage(BaseModel):
    """One version of a package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    integrity: str
    """As `npm view NAME@VERSION dist.integrity` states it: sha512- and the digest in base64."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def file(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True, slots=True)
class PackageFolder:
    """Packages that have been fetched into a folder."""

    path: Path

    def check(self, packages: Iterable[NpmPackage]) -> None:
        """Raise PackageError, naming all missing packages, if they have to be fetched without
        npm."""
        missing = [package.file for package in packages if not self.has(package)]
        if missing and shutil.which("npm") is None:
            raise PackageError(
                "npm, which fetches packages, is not installed. Install Node.js, or put these "
                f"files into {self.path}, as `npm pack` names them: {', '.join(missing)}"
            )

    def has(self, package: NpmPackage) -> bool:
        """Whether the right file is here."""
        path = self.path / package.file
        return path.exists() and _integrity(path) == package.integrity

    def fetch(self, package: NpmPackage) -> bool:
        """Make sure that the package is here, by `npm pack`; False if it was already. Raises
        PackageError."""
        if self.has(package):
            return False
        path = self.path / package.file
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".npm-") as folder:
            unfinished = Path(folder) / package.file
            _npm_pack(package, unfinished)
            if (integrity := _integrity(unfinished)) != package.integrity:
                raise PackageError(
                    f"npm fetched another {package} than this tool was written for: its integrity "
                    f"is {integrity}, expected {package.integrity}; it was deleted. Look at `npm "
                    "config get registry`: a mirror may have answered"
                )
            os.replace(unfinished, path)
        return True

    def size(self, package: NpmPackage) -> int:
        """In bytes."""
        return (self.path / package.file).stat().st_size

    def members(self, package: NpmPackage, folder: str) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files in a folder of the package, without those in the folders
        below it."""
        with tarfile.open(self.path / package.file, "r:gz") as tar:
            for member in tar:
                parent, _, name = member.name.rpartition("/")
                if parent == f"package/{folder}" and (file := tar.extractfile(member)):
                    yield name, file.read()

    def json(self, package: NpmPackage, name: str) -> Any:
        """The contents of a JSON file of the package. Raises KeyError if it has none."""
        with tarfile.open(self.path / package.file, "r:gz") as tar:
            file = tar.extractfile(f"package/{name}")
            if file is None:
                raise KeyError(f"{name} of {package} is no file")
            return json.load(file)


def _npm_pack(package: NpmPackage, path: Path) -> None:
    spec = f"{package.name}@{package.version}"
    command = ["npm", "pack", spec, "--ignore-scripts", "--pack-destination", str(path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.exists():
        reason = "\n".join(done.stderr.strip().splitlines()[:_FIRST_LINES])
        raise PackageError(
            f"cannot fetch {package}: `npm pack {spec}` failed; try again, finished packages are "
            f"kept\n{reason}"
        )


def _integrity(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"
