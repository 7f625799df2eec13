"""`tld watch`: runs at work, and the last that was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, file_lock
from data_catalog.storage.run_records import read_records
from flows.cli.stop import stop
from flows.cli.watch import watch
from flows.terminal.errors import UserError
from pipeline.compute.polling import wait_until
from tests.support.command import snapshot
from tests.support.running import running
from tests.support.small import TINY
from tests.support.terminal import on_a_terminal


def test_a_run_at_work_and_then_a_killed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    override = f"root={tmp_path}"
    watch(TINY, override)
    assert f"nothing runs in {tmp_path}, and no run is recorded there" in capsys.readouterr().out
    with running(tmp_path) as process:
        before = snapshot(tmp_path)
        watch(TINY, override, "train.lr=1")
        text = capsys.readouterr().out
        assert snapshot(tmp_path) == before, "it only reads"
        assert f"tld run {TINY}" in text
        assert f"process {process.pid} on " in text
        assert "encode    done" in text
        assert "train     30/120 (25%)  loss 0.5  9 images/s  ETA 1:05" in text
        assert "evaluate  to do" in text
        process.kill()
        process.wait()
    watch(TINY, override)
    text = capsys.readouterr().out
    assert f"nothing runs in {tmp_path}; the last run:" in text
    assert "was killed in train, or its machine stopped" in text


def test_what_runs_without_a_record_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "03_model/0123456789ab"
    with file_lock(folder / LOCK_NAME, 0):  # as by run_stages in a notebook
        watch(TINY, f"root={tmp_path}")
        with pytest.raises(UserError) as refused:
            stop(TINY, f"root={tmp_path}")
    for text in (capsys.readouterr().out.replace("\n", " "), str(refused.value)):
        assert f"{folder} is being made by " in text
        assert f"process {os.getpid()}, which wrote no record (Python, Prefect or" in text
        assert "nothing runs" not in text
        assert "start with" not in text


def test_two_runs_in_one_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path), running(tmp_path, ["train.lr=0.5"]):
        watch(TINY, f"root={tmp_path}", once=True)
    first, second = capsys.readouterr().out.split("\n\n")
    assert "train.lr=0.5" not in first
    assert "train.lr=0.5" in second


def test_on_a_terminal_it_goes_on_until_the_run_ends(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        words = [sys.executable, "-m", "flows.cli", "watch", str(TINY), f"root={tmp_path}"]
        shown = on_a_terminal(*words, "--once")
        assert "train     30/120 (25%)" in shown
        script = (
            "import sys, threading, os, signal\n"
            "from flows.cli.app import main\n"
            f"threading.Timer(3, os.kill, ({process.pid}, signal.SIGINT)).start()\n"
            "main(sys.argv[1:])"
        )
        shown = on_a_terminal(sys.executable, "-c", script, *words[3:])
    assert "train     30/120 (25%)" in shown
    assert "stopped in train after" in shown
    assert "stopped; the checkpoint of step 30 of 120 is saved" in shown


def test_ctrl_c_ends_only_the_watching(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        script = (
            "import sys, threading, os, signal\n"
            "from flows.cli.app import main\n"
            f"threading.Timer(3, os.kill, (os.getpid(), {int(signal.SIGINT)})).start()\n"
            "main(sys.argv[1:])"
        )
        words = ["watch", str(TINY), f"root={tmp_path}"]
        shown = on_a_terminal(sys.executable, "-c", script, *words)
        assert "the watching has ended, the run goes on" in shown
        assert f"tld stop {TINY} root={tmp_path}" in shown
        assert not wait_until(lambda: process.poll() is not None, 1, every_s=0.1)
        assert read_records(tmp_path)[-1].is_at_work
