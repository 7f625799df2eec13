"""What a run does, as text."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_catalog.model_files import EVENTS_FILE
from data_catalog.storage.file_lock import LOCK_NAME, file_lock
from data_catalog.storage.run_records import (
    RunRecord,
    StoredRecord,
    identify_process,
    mark_interrupted,
)
from flows.cli.run_view import at_work_text, ended_text


def stored(root: Path, *, is_at_work: bool = False, **changed: object) -> StoredRecord:
    now = datetime.now(UTC)
    fields = {
        "command": "tld run tiny",
        "name": "tiny",
        "settings": "0",
        "process": identify_process(os.getpid()),
        "started_at": now - timedelta(minutes=12),
        "updated_at": now,
        "stages": [
            {"title": "encode", "state": "done"},
            {"title": "train", "state": "at work"},
            {"title": "evaluate"},
        ],
    }
    record = RunRecord.model_validate({**fields, **changed})
    return StoredRecord(record, root / "logs/a.log", is_at_work)


def test_a_training_has_its_curves_and_newest_samples(tmp_path: Path) -> None:
    folder = tmp_path / "03_model/0123456789ab"
    (folder / "samples").mkdir(parents=True)
    for step in (2, 4):
        (folder / f"samples/step-0000000{step}.png").touch()
    values = {"lr": 1e-3, "gradient_norm": 1.0, "images_per_s": 9.0, "held_out_loss/0.0-0.2": 1.0}
    events = [
        {"kind": "metrics", "step": step, "values": {"loss": 1 / step, **values}}
        for step in range(1, 6)
    ]
    events += [
        {"kind": "metrics", "step": 4, "values": {"held_out_loss": 0.25}},
        {"kind": "metrics", "step": 4, "values": {"cmmd": 0.5}, "best": None},
        {"kind": "artifact", "step": 4, "path": "samples/step-00000004.png"},
    ]
    (folder / EVENTS_FILE).write_text("".join(json.dumps(event) + "\n" for event in events))
    with file_lock(folder / LOCK_NAME, 0):
        run = stored(tmp_path, is_at_work=True, done=30, total=120, note="loss 0.5  ETA 1:05")
        lines = at_work_text(run, tmp_path).splitlines()
    assert lines[0] == "tld run tiny"
    assert lines[1].endswith(f"(12 min), process {os.getpid()} on {run.record.process.host}")
    assert lines[2:] == [
        "  encode    done",
        "  train     30/120 (25%)  loss 0.5  ETA 1:05",
        "  evaluate  to do",
        "  loss           █▃▂▁▁  1 -> 0.2, steps 1 to 5",
        "  held_out_loss  ▁  0.25 at step 4",
        "  cmmd           ▁  0.5 at step 4",
        f"  samples: {folder}/samples/step-00000004.png",
        f"  log: {tmp_path}/logs/a.log",
    ]


def test_a_run_that_is_silent_or_stopping_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    silent = stored(
        tmp_path, is_at_work=True, updated_at=datetime.now(UTC) - timedelta(minutes=3), note="x"
    )
    mark_interrupted(silent.log)
    text = at_work_text(silent, tmp_path)
    assert "nothing new for 3 min" in text
    assert "is stopping, since " in text


def test_what_has_ended_says_how(tmp_path: Path) -> None:
    finished = ended_text(stored(tmp_path, ended="finished", stages=[], lines=["a line"]))
    assert "finished after 12 min" in finished
    assert "a line" not in finished
    failed = ended_text(stored(tmp_path, ended="failed", lines=["train: diverged"]))
    assert "failed in train after 12 min" in failed
    assert f"train: diverged\n  log: {tmp_path}/logs/a.log" in failed
    killed = ended_text(stored(tmp_path))
    assert "was killed in train, or its machine stopped" in killed
