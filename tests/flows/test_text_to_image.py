"""The Prefect flow: what it reads once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small import TINY, small

# The command line in a process that says whenever it reads the URL table.
COUNTING = """
import sys
from pipeline.stages import run_inputs
digest = run_inputs.digests_of
run_inputs.digests_of = lambda urls: (print("the table is read"), digest(urls))[1]
from flows.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_url_table_is_read_once_to_ask_and_once_to_run(tmp_path: Path) -> None:
    """The command asks what is stale; the flow, which may also run without the command, decides."""

    def reads(*words: str) -> int:
        command = [sys.executable, "-c", COUNTING, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.count("the table is read")

    run = [str(TINY), *small(tmp_path / "data", download__limit=8)]
    assert reads("run", *run, "--until", "download") == 2
    assert reads("run", *run, "--until", "download") == 1, "it is fresh"
    assert reads("status", *run) == 1
