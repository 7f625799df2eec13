"""Records of runs: whose process is alive, and whose is not."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, file_lock, locked
from data_catalog.storage.run_records import (
    ProcessIdentity,
    RunRecord,
    delete_log,
    folder_at_work,
    identify_process,
    read_records,
    write_record,
)
from pipeline.compute.polling import wait_until


def record_of(**changed: object) -> RunRecord:
    process, now = identify_process(os.getpid()), datetime.now(UTC)
    assert process
    fields = {"command": "tld run tiny", "name": "tiny", "settings": "0", "process": process}
    return RunRecord.model_validate({**fields, "started_at": now, "updated_at": now, **changed})


def logs(root: Path) -> Path:
    (root / "logs").mkdir(exist_ok=True)
    return root / "logs"


def test_a_process_is_not_mistaken_for_a_later_one_with_its_number() -> None:
    mine = identify_process(os.getpid())
    assert mine
    assert mine.is_running_here
    for other in ({"started_ticks": mine.started_ticks - 1}, {"boot": "of yesterday"}):
        assert not mine.model_copy(update=other).is_running_here
    assert not mine.model_copy(update={"host": "elsewhere"}).is_running_here


def test_a_process_that_has_ended_is_none_even_if_nobody_waits_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert wait_until(lambda: identify_process(process.pid) is None, 20, every_s=0.05), "a zombie"
    process.wait()
    assert identify_process(process.pid) is None


def test_a_run_is_at_work_as_long_as_its_log_is_locked(tmp_path: Path) -> None:
    log = logs(tmp_path) / "2026-01-01T00-00-00-1.log"
    with locked(log, 0):
        write_record(log, record_of())
        (stored,) = read_records(tmp_path)
        assert stored.is_at_work
        assert not stored.was_killed
    (stored,) = read_records(tmp_path)
    assert stored.was_killed, "the process is gone, and never said how it ended"
    write_record(log, record_of(ended="finished"))
    (stored,) = read_records(tmp_path)
    assert not stored.was_killed
    assert not stored.is_at_work


def test_records_come_by_age_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for name, days in (("b", 2), ("a", 1), ("c", 3)):
        log = logs(tmp_path) / f"{name}.log"
        write_record(log, record_of(command=name, started_at=now - timedelta(days=days)))
    (tmp_path / "logs/d.json").write_text("{")
    assert [one.record.command for one in read_records(tmp_path)] == ["c", "b", "a"]
    assert read_records(tmp_path / "nothing") == []
    delete_log(tmp_path / "logs/a.log")
    assert len(read_records(tmp_path)) == 2


def test_a_run_is_interrupted_once(tmp_path: Path) -> None:
    log = logs(tmp_path) / "a.log"
    write_record(log, record_of())
    (first,), (second,) = read_records(tmp_path), read_records(tmp_path)
    with pytest.raises(KeyboardInterrupt), second.interrupting():
        raise KeyboardInterrupt  # before the signal was sent
    assert first.interrupted_at is None
    with first.interrupting() as is_first:
        assert is_first
    assert second.interrupted_at
    with second.interrupting() as is_first:
        assert not is_first, "a second interrupt would end the writing of a checkpoint"


def test_the_folder_at_work_is_that_which_the_process_has_locked(tmp_path: Path) -> None:
    process = identify_process(os.getpid())
    assert process
    for name in ("left", "locked"):
        (tmp_path / "03_model" / name).mkdir(parents=True)
    with file_lock(tmp_path / "03_model/left" / LOCK_NAME, 0):
        pass
    assert folder_at_work(tmp_path, process) is None
    with file_lock(tmp_path / "03_model/locked" / LOCK_NAME, 0):
        assert folder_at_work(tmp_path, process) == tmp_path / "03_model/locked"
        other = ProcessIdentity(host=process.host, pid=1, boot="", started_ticks=0)
        assert folder_at_work(tmp_path, other) is None
