"""What a workspace of many runs holds, and how what none needs goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_catalog.manifest import MANIFEST_NAME
from pipeline.config import RunConfig
from pipeline.inventory import find_waste, remove
from pipeline.locks import LOCK_NAME, StillHeld, held
from pipeline.stage import survey
from tests.support.command import tld
from tests.support.small import TINY
from tests.support.workspace import make_workspace, overrides


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A run, with another training and an interrupted one beside it."""
    config = make_workspace(tmp_path / "data")
    make_workspace(tmp_path / "data", train__seed=1)
    folder = survey(config)["train"].folder
    assert folder
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/step-00000012.pt").write_bytes(bytes(5_000_000))
    (folder.parent / "0123456789ab").mkdir()
    (folder.parent / "0123456789ab/half.bin").write_bytes(bytes(3_000_000))
    return config


def states(config: RunConfig) -> list[str]:
    return [status.state for status in survey(config).values()]


def test_status_all_shows_every_output_and_what_it_was_made_from(run: RunConfig) -> None:
    done = tld("status", TINY, *overrides(run.folder), "--all", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["stage"], row["state"]) for row in rows] == [
        ("download", "finished"),
        ("encode", "finished"),
        ("train", "finished"),
        ("train", "finished"),
        ("train", "interrupted"),
    ]
    assert [row["this_run"] for row in rows].count("fresh") == 3
    assert rows[1]["made_from"] == rows[0]["output"]
    assert rows[2]["made_from"] == rows[3]["made_from"] == rows[1]["output"]


def test_clean_says_what_it_would_free_then_frees_it_and_keeps_the_run(run: RunConfig) -> None:
    before = states(run)
    asked = tld("clean", TINY, *overrides(run.folder))
    assert asked.returncode == 0, asked.stderr
    assert "of a training that is finished" in asked.stdout
    assert "interrupted, of other settings" in asked.stdout
    assert len(find_waste([run])) == 3, "nothing was deleted yet"
    again = asked.stdout.splitlines()[-1].partition(": ")[2].split()
    assert tld(*again[1:]).returncode == 0, "the command that it suggests"
    assert find_waste([run]) == []
    assert states(run) == before == ["fresh", "fresh", "fresh", "missing"]
    assert "nothing to free" in tld("clean", TINY, *overrides(run.folder)).stdout


def test_a_run_that_is_named_is_kept_and_one_of_another_workspace_is_a_mistake(run: RunConfig, tmp_path: Path) -> None:
    other = " ".join(map(str, [TINY, *overrides(run.folder), "train.seed=1"]))
    kept = tld("clean", TINY, *overrides(run.folder), "--keep", other)
    assert "finished, of other settings" not in kept.stdout
    elsewhere = tld("clean", TINY, *overrides(run.folder), "--keep", f"{TINY} root={tmp_path / 'other'}")
    assert elsewhere.returncode == 2
    assert "is another workspace than" in elsewhere.stderr


def test_a_run_that_is_named_is_kept_however_its_workspace_is_spelled(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = run.model_copy(update={"train": run.train.model_copy(update={"seed": 1})})
    waste = find_waste([run.model_copy(update={"root": "data"}), other])
    assert [item.why for item in waste] == ["interrupted, of other settings", "of a training that is finished"]


def test_what_a_process_works_in_stays(run: RunConfig) -> None:
    working = next(item for item in find_waste([run]) if "interrupted" in item.why)
    with held(working.path / LOCK_NAME, patience_s=0):
        assert not remove(working, run)
        whole = sum(item.bytes for item in find_waste([run]) if item.path != working.path)
        told = tld("clean", TINY, *overrides(run.folder), "--yes").stdout
        assert "kept: a process works in it" in told
        assert f"{whole / 1e6:,.1f} MB freed" in told
        assert (working.path / "half.bin").exists()
    assert remove(working, run)
    assert not working.path.exists()


def test_who_comes_while_an_output_is_deleted_waits_to_the_end(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    going = next(item for item in find_waste([run]) if "interrupted" in item.why)
    (going.path / "checkpoints").mkdir()
    unlink = Path.unlink

    def unlink_while_another_comes(path: Path, missing_ok: bool = False) -> None:
        if path.parent == going.path:
            with pytest.raises(StillHeld), held(going.path / LOCK_NAME, patience_s=0):
                """Nobody else works in half an output."""
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_while_another_comes)
    assert remove(going, run)
    assert not going.path.exists()
    assert remove(going, run), "as by another `tld clean` at the same time"
    assert not going.path.exists()


def test_bytes_that_another_output_links_to_are_not_freed(run: RunConfig) -> None:
    (whole,) = (item.bytes for item in find_waste([run]) if "interrupted" in item.why)
    half = next(item.path for item in find_waste([run]) if "interrupted" in item.why) / "half.bin"
    encodings = survey(run)["encode"].folder
    assert encodings
    (encodings / "linked.bin").hardlink_to(half)
    (linked,) = (item.bytes for item in find_waste([run]) if "interrupted" in item.why)
    assert whole - linked == 3_000_000


def test_while_a_stage_is_unfinished_nothing_of_those_after_it_goes(run: RunConfig) -> None:
    """As in the middle of a download that is done again: its manifest is gone, and comes back with the same digest."""
    folder = survey(run)["download"].folder
    assert folder
    (folder / MANIFEST_NAME).rename(folder / "kept")
    assert [item.why for item in find_waste([run])] == []
    (folder / "kept").rename(folder / MANIFEST_NAME)
    assert len(find_waste([run])) == 3
