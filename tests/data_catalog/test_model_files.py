"""The files of a model's folder: which checkpoint a training continues from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_catalog.model_files import (
    MODEL_FILE,
    NoCheckpoint,
    Trunk,
    checkpoint_to_continue,
    checkpoints,
    read_events,
    read_last_events,
    read_trunk,
)
from data_catalog.storage.cached_files import RemoteRecord, write_remote_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-00000900.pt", "step-00001000.pt", "step-00000700.pt", "step-00000700.unfit"):
        (tmp_path / "checkpoints" / name).touch()
    (tmp_path / "checkpoints/step-last.pt").touch()  # a user's own name
    return tmp_path


def test_checkpoints_are_in_the_order_of_their_steps(folder: Path) -> None:
    assert [path.name for path in checkpoints(folder / "checkpoints")] == [
        *("step-00000700.pt", "step-00000900.pt", "step-00001000.pt")
    ]


@pytest.mark.parametrize(("trunk", "step"), [(None, 1000), (950, 900), (1000, 1000), (600, 1000)])
def test_a_folder_stands_for_its_newest_checkpoint_before_the_decay(
    folder: Path, trunk: int | None, step: int
) -> None:
    if trunk:
        record = Trunk(fingerprint="0", steps=trunk)
        (folder / "trunk.json").write_text(record.model_dump_json())
        assert read_trunk(folder) == record
    assert checkpoint_to_continue(folder).name == f"step-{step:08d}.pt"


def test_a_file_stands_for_itself(folder: Path) -> None:
    file = folder / "checkpoints/step-last.pt"
    assert checkpoint_to_continue(file) == file


def test_what_is_not_there_is_named_with_the_next_move(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint, match=f"there is no file or folder {tmp_path}/none"):
        checkpoint_to_continue(tmp_path / "none")
    with pytest.raises(
        NoCheckpoint,
        match=r"has no checkpoint .* `tld clean` .*checkpoints \(--undo puts them back\)$",
    ):
        checkpoint_to_continue(tmp_path)
    (tmp_path / MODEL_FILE).touch()
    with pytest.raises(NoCheckpoint, match=rf"set train\.init_from={tmp_path}$"):
        checkpoint_to_continue(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", '{"steps": 3}', '{"fingerprint": "0"'])
def test_a_missing_or_damaged_trunk_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "trunk.json").write_text(content)
    assert read_trunk(tmp_path) is None


def test_a_checkpoint_in_object_storage_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"state")
    (tmp_path / "model/checkpoints").mkdir(parents=True)
    there = tmp_path / "model/checkpoints/step-00000008.pt"
    write_remote_record(there, RemoteRecord(f"file://{tmp_path}/object", 5, "1"), None)
    assert checkpoint_to_continue(tmp_path / "model").read_bytes() == b"state"


def test_of_a_long_event_log_the_last_part_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_last_events(path) == []
    lines = [
        json.dumps({"kind": "metrics", "step": step, "values": {"loss": 0.5}})
        for step in range(20_000)
    ]
    path.write_text("\n".join(lines[:10]) + "\n{")
    assert read_last_events(path) == read_events(path)
    path.write_text("\n".join(lines))
    steps = [event["step"] for event in read_last_events(path)]
    assert steps == list(range(steps[0], 20_000)), "none of them is cut"
    assert 1000 < len(steps) < 10_000
