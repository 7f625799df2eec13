"""The bill of materials names what is locked, with licences, and nothing of this machine."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.command import REPOSITORY
from tools import write_sbom


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    write_sbom.main(["--out", str(path)])
    return path


@pytest.fixture
def sbom(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def locked() -> Iterator[Requirement]:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        for line in (REPOSITORY / lock).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                requirement = Requirement(line)
                if not requirement.marker or requirement.marker.evaluate():
                    yield requirement


def test_it_is_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"librarian"', 1)) is not None


def test_it_says_what_it_is_of(sbom: dict[str, Any]) -> None:
    component = sbom["metadata"]["component"]
    assert (component["name"], component["version"]) == ("tld-diffusion", version("tld-diffusion"))
    assert component["licenses"] == [{"license": {"acknowledgement": "declared", "id": "MIT"}}]
    direct = next(one for one in sbom["dependencies"] if one["ref"] == component["bom-ref"])
    assert any(ref.startswith("torch==") for ref in direct["dependsOn"])
    assert not any("tld" in one["name"] for one in sbom["components"]), "it is not its own part"


def test_every_locked_package_has_its_version_and_a_licence(sbom: dict[str, Any]) -> None:
    components = {str(canonicalize_name(one["name"])): one for one in sbom["components"]}
    for requirement in locked():
        component = components[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(component["version"], prereleases=True)
        assert component["licenses"]
    assert components["torch"]["scope"] == "required"
    assert components["pytest"]["scope"] == "optional"
    assert not write_sbom.without_license(sbom)


def test_it_holds_no_path_or_index_of_this_machine(path: Path, sbom: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    addresses = re.findall(r'"url": "([^"]*)"', text)
    assert len(addresses) > 100
    assert not [one for one in addresses if not re.match(r"(https?|git)://", one)]
    assert not [one for one in addresses if re.search(r"://(localhost|127\.|10\.|192\.168\.)", one)]
    assert str(REPOSITORY) not in text
    assert sys.prefix not in text
    assert not {"serialNumber", "timestamp"} & (sbom.keys() | sbom["metadata"].keys())


def test_it_is_the_same_each_time(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    write_sbom.main(["--out", str(again)])
    assert again.read_bytes() == path.read_bytes()


def test_a_package_without_a_licence_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_sbom, "_LICENSES", {})
    with pytest.raises(SystemExit, match=r"without a licence in their metadata: .*huey"):
        write_sbom.main(["--out", str(tmp_path / "sbom.json")])
