"""A workspace that lies elsewhere than it did, and a version of tld that is not the one that made
it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY
from tests.support.faults import UNFINISHED, Tell, Victim, kill_driver


def test_moved_workspace(victim: Victim, undisturbed: Victim, tell: Tell, tmp_path: Path) -> None:
    """In the middle of a training; the new place has a name that is hard to quote."""
    victim.copy_from(undisturbed, "train")
    kill_driver(victim.begin_until("train"))
    moved = Victim(tmp_path / "a place, 100% new?")
    victim.root.rename(moved.root)
    seen = moved.run()
    tell("a workspace that is moved in the middle of a training", seen, UNFINISHED["train"])
    seen.ended_with(0)
    assert seen.told.count("fresh: ") == 2
    assert moved.digests() == undisturbed.digests()
    assert not victim.root.exists()
    assert list(moved.root.glob("mlartifacts/*/artifacts/grid.png"))


@pytest.fixture
def later_version(tmp_path: Path) -> Path:
    """The packages, each section of whose settings has one more."""
    for package in ("data_catalog", "flows", "pipeline", "tld_model"):
        shutil.copytree(REPOSITORY / package, tmp_path / "later" / package)
    for section in ("download", "encode", "train", "evaluate"):
        settings = tmp_path / "later/pipeline/config" / f"{section}.py"
        text, sections = re.subn(
            rf"^(class {section.title()}Config\(.*?\):\n(?:    \"\"\".*?\"\"\"\n)?)",
            r"\1\n    newer: int = 7\n",
            settings.read_text(encoding="utf-8"),
            flags=re.MULTILINE | re.DOTALL,
        )
        assert sections == 1
        settings.write_text(text, encoding="utf-8")
    return tmp_path / "later"


def test_upgrade(victim: Victim, undisturbed: Victim, tell: Tell, later_version: Path) -> None:
    victim.copy_from(undisturbed, None)
    upgraded = {"PYTHONPATH": str(later_version)}
    seen = victim.run(**upgraded)
    tell("an upgrade that brings new settings", seen, "nothing")
    seen.ended_with(0)
    assert seen.told.count("fresh: ") == 4
    assert victim.digests() == undisturbed.digests()
    changed = victim.run("run", "evaluate.newer=8", **upgraded)
    changed.ended_with(0)
    assert changed.told.count("fresh: ") == 3, "it is the later version that runs"
