"""`tld stop`: the run that is meant, and no other process."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import locked
from data_catalog.storage.run_records import (
    StoredRecord,
    mark_interrupted,
    read_records,
    write_record,
)
from flows.cli.stop import stop
from flows.terminal.errors import UserError
from pipeline.compute.polling import wait_until
from pipeline.stages.contract import StageFailed
from tests.support.command import start, tld
from tests.support.running import running
from tests.support.small import TINY, small
from tests.support.waiting import wait_while_running


def at_work(root: Path) -> StoredRecord:
    (stored,) = [one for one in read_records(root) if one.is_at_work]
    return stored


def test_a_run_stops_and_says_what_it_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, ["train.lr=0.5"]) as process:
        stop(TINY, f"root={tmp_path}")
        assert process.wait(10) == 130
    text = capsys.readouterr()
    assert f"process {process.pid} is stopping" in text.err, "a sign of life"
    assert "stopped in train" in text.out
    assert "train: stopped; the checkpoint of step 30 of 120 is saved" in text.out
    assert f"to resume:\n  tld run {TINY} train.lr=0.5" in text.out
    with pytest.raises(UserError, match=rf"nothing runs in {tmp_path}, so nothing can be stopped"):
        stop(TINY, f"root={tmp_path}")


def test_what_resumes_begins_not_from_scratch_and_works_as_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, ["--force", "train"]):
        stop(TINY, f"root={tmp_path}")
    assert f"to resume:\n  tld run {TINY}\n" in capsys.readouterr().out
    url = "download.urls=https://me:secret@example.org/table.csv"
    with running(tmp_path, [url]):
        stop(TINY, f"root={tmp_path}", url)
    assert "to resume, type the command again that you typed" in capsys.readouterr().out


def test_a_stop_after_an_interrupt_waits_and_interrupts_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        process.send_signal(signal.SIGINT)  # as by Ctrl-C in its own terminal
        assert wait_until(lambda: at_work(tmp_path).interrupted_at is not None, 10, every_s=0.05)
        stop(TINY, f"root={tmp_path}")
        assert process.wait(10) == 130
    (stored,) = read_records(tmp_path)
    assert stored.record.ended == "stopped"
    assert "checkpoint" in stored.record.lines[-1], "which the stop did not interrupt"


def test_two_stops_at_once_interrupt_once(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        stops = [threading.Thread(target=stop, args=(TINY, f"root={tmp_path}")) for _ in "12"]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()
        assert process.wait(10) == 130
    (stored,) = read_records(tmp_path)
    assert "checkpoint" in stored.record.lines[-1], "which the second did not interrupt"


def test_a_run_that_ends_just_now_is_not_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as process:
        before = read_records(tmp_path)
        process.send_signal(signal.SIGINT)
        process.wait()
    answers = iter([before])
    monkeypatch.setattr(
        "flows.cli.stop.read_records", lambda root: next(answers, None) or read_records(root)
    )
    stop(TINY, f"root={tmp_path}")
    assert "stopped in train" in capsys.readouterr().out


def test_of_several_the_one_with_these_settings_stops(tmp_path: Path) -> None:
    root = f"root={tmp_path}"
    with running(tmp_path) as first, running(tmp_path, ["train.lr=0.5"]) as second:
        with pytest.raises(UserError) as unclear:
            stop(TINY, root, "train.lr=0.7")
        assert "several runs of tiny are at work" in str(unclear.value)
        for process in (first, second):
            assert f"process {process.pid} on " in str(unclear.value)
        with pytest.raises(UserError, match="no run of other is at work"):
            stop(TINY, root, "name=other")
        stop(TINY, root, "train.lr=0.5")
        assert second.wait(10) == 130
        assert not wait_until(lambda: first.poll() is not None, 1, every_s=0.1)


def test_a_process_elsewhere_or_another_one_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger, running(tmp_path) as process:
        log, record = at_work(tmp_path).log, at_work(tmp_path).record
        process.kill()
        process.wait()
        with locked(log, 5):  # as by a machine that shares the disk
            elsewhere = record.process.model_copy(update={"host": "node7", "pid": stranger.pid})
            write_record(log, record.model_copy(update={"process": elsewhere}))
            with pytest.raises(UserError, match=f"works on node7, as process {stranger.pid}"):
                stop(TINY, f"root={tmp_path}")
            of_another = {"pid": stranger.pid, "started_ticks": 0}
            reused = record.process.model_copy(update=of_another)
            write_record(log, record.model_copy(update={"process": reused}))
            with pytest.raises(UserError, match="not visible here"):
                stop(TINY, f"root={tmp_path}")
        assert stranger.poll() is None
        stranger.kill()


def test_a_run_that_ends_otherwise_is_an_error(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        mark_interrupted(at_work(tmp_path).log)  # asked before, and hangs
        threading.Timer(1, process.kill).start()
        waiter = threading.Thread(target=process.wait)
        waiter.start()
        with pytest.raises(StageFailed, match="the run did not stop as asked"):
            stop(TINY, f"root={tmp_path}")
        waiter.join()


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["Ctrl-C", "in-the-background"])
def test_a_training_stops_as_by_ctrl_c_and_resumes(tmp_path: Path, *, ignored: bool) -> None:
    """A script starts commands in the background with SIGINT ignored."""
    settings = small(tmp_path, train__steps=100_000, train__log_every=1, train__sample_every=50_000)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        process = start("run", TINY, *settings)
    finally:
        if ignored:
            signal.signal(signal.SIGINT, handler)
    with process:
        try:
            wait_while_running(
                lambda: list(tmp_path.glob("03_model/*/checkpoints/step-*.pt")), process
            )
            shown = ""

            def shows_steps() -> bool:
                nonlocal shown
                shown = tld("watch", TINY, *settings).stdout
                return bool(re.search(r"train +[\d,]+/100,000 \(\d+%\)", shown))

            wait_while_running(shows_steps, process)
            assert "  loss  " in shown
            done = tld("stop", TINY, f"root={tmp_path}")
            assert done.returncode == 0, done.stderr
            assert "of 100000 is saved" in done.stdout
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 128 + (signal.SIGTERM if ignored else signal.SIGINT), (
                output
            )
            assert "tld: stopped; run the same command to resume" in output
            assert tld("stop", TINY, f"root={tmp_path}").returncode == 2
        finally:
            process.kill()  # if it does not stop, it is no trouble of the next test
