"""Runs at work that compute nothing: processes with a record, a log and a stage."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_catalog.storage.run_records import read_records
from tests.support.command import ENVIRONMENT, REPOSITORY
from tests.support.small import TINY
from tests.support.waiting import wait_while_running

_SCRIPT = """
import os, sys, time
from pathlib import Path
from data_catalog.storage.file_lock import LOCK_NAME, file_lock
from pipeline.config.command_line import remember_command
from flows.terminal.progress import Progress
from flows.terminal.run_log import run_log
from flows.terminal.run_record import recorded_run
from pipeline.config.load import load_config
config, root, *overrides = sys.argv[1:]
remember_command(["run", config, *overrides])
settings = load_config(Path(config), [f"root={root}", *(word for word in overrides if "=" in word)])
folder = Path(root, f"03_model/{os.getpid():012}")
try:
    with recorded_run(settings, ["encode", "train", "evaluate"]), run_log(Path(root)):
        with Progress("encode") as show:
            show.finish("fresh")
        with file_lock(folder / LOCK_NAME, 60), Progress("train") as show:
            try:
                show.update(0, 0, "loading")
                time.sleep(1.1)
                show.update(30, 120, "loss 0.5  9 images/s  ETA 1:05")
                time.sleep(60)
            except KeyboardInterrupt:
                time.sleep(1)  # in which a second interrupt would save nothing
                show.finish("stopped; the checkpoint of step 30 of 120 is saved")
                raise
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextlib.contextmanager
def running(root: Path, overrides: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that pretends to train, for at most a minute."""
    count = len(read_records(root))
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(TINY), str(root), *overrides],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_while_running(
                lambda: len(stored := read_records(root)) > count and stored[-1].record.done,
                process,
            )
            yield process
        finally:
            process.kill()
