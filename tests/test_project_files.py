"""The files around the code: workflows, forms, package data, citation, changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.config_file import shipped_configs

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PACKAGES = ("data_catalog", "tld_model", "pipeline", "flows")


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_fit_their_schemas(schema: str, files: str) -> None:
    paths = sorted(ROOT.glob(files))
    assert paths
    options = ["--builtin-schema", schema, "--force-filetype", "yaml"]
    subprocess.run([BIN / "check-jsonschema", *options, *paths], check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_and_run_pinned_actions(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    for action in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action


def test_workflows_call_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    called = {
        target
        for path in WORKFLOWS
        for target in re.findall(r"\bmake ([a-z-]+)", path.read_text(encoding="utf-8"))
    }
    assert called <= targets


def test_every_file_of_the_packages_is_shipped() -> None:
    found = {
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    shipped = {
        path.relative_to(ROOT)
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert found == shipped
    assert {Path(package, "py.typed") for package in PACKAGES} <= shipped


@pytest.mark.slow
def test_the_wheel_holds_every_config(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (sources / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, sources / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    pip_wheel = [sys.executable, "-m", "pip", "wheel", *options, f"--wheel-dir={tmp_path}"]
    subprocess.run([*pip_wheel, str(sources)], check=True)
    (wheel,) = tmp_path.glob("tld_diffusion-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, path in shipped_configs().items():
            assert archive.read(f"pipeline/config/presets/{name}.yaml") == path.read_bytes()


def test_a_checkout_has_each_config_once() -> None:
    for name, path in shipped_configs().items():
        link = ROOT / "conf" / path.name
        assert link.is_symlink(), f"{name} is edited in pipeline/config/presets"
        assert not link.readlink().is_absolute()
        assert link.resolve() == path.resolve()


def test_the_changelog_knows_this_version_and_no_later_one() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"]
