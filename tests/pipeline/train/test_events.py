"""What training told, damaged."""

from __future__ import annotations

import json
from pathlib import Path

from data_catalog.model_files import EVENTS_FILE
from pipeline.compute.polling import wait_until
from pipeline.evaluate.training_history import logged_metrics
from pipeline.stages.progress import watch_counts
from pipeline.train.events import EventLog, set_events_aside


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


def test_a_step_that_is_only_shown_has_the_last_loss_and_leaves_no_event(tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []
    with watch_counts(tmp_path, lambda *count: shown.append(count)):
        log = EventLog(tmp_path, total=20, batch_size=8)
        log.write_step(2, 0.5, 1.0, 1e-3)
        events = (tmp_path / EVENTS_FILE).read_text()
        log.show_step(3)
        assert wait_until(lambda: bool(shown), 5, every_s=0.01)
    assert shown == [(3, "loss 0.5000")]
    assert (tmp_path / EVENTS_FILE).read_text() == events
