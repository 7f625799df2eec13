"""What training told, damaged."""

from __future__ import annotations

import json
from pathlib import Path

from data_catalog.model_files import EVENTS_FILE
from pipeline.evaluate.training_history import logged_metrics
from pipeline.train.events import set_events_aside


def test_damage_to_what_was_told_stops_no_training_and_no_report(tmp_path: Path) -> None:
    whole = {"kind": "metrics", "step": 2, "values": {"loss": 1.0}}
    line = json.dumps(whole).encode() + b"\n"
    damaged = [
        line.replace(b"step", b"rtep"),
        line.replace(b"kind", b"cind"),
        line.replace(b"m", b"\xed"),
        line[:9],
    ]
    (tmp_path / EVENTS_FILE).write_bytes(b"".join([line, *damaged]))
    assert logged_metrics(tmp_path / EVENTS_FILE)["loss"] == [(2, 1.0)]
    set_events_aside(tmp_path)
    assert [
        json.loads(line) for line in (tmp_path / "events.before.jsonl").read_text().splitlines()
    ] == [whole]
