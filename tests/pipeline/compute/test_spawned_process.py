"""Workers of a script that has no `if __name__ == "__main__":`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

SCRIPT = """
print("the script runs")
from pipeline.compute.worker_pool import ShardPool
from tests.support.mapping import do_nothing

with ShardPool(do_nothing, 2) as pool:
    print(pool.run("one"), pool.run("two"))
import sys
print(sys.modules["__main__"].__spec__)
"""


@pytest.mark.parametrize("start", ["script", "-c"])
def test_a_script_needs_no_guard(start: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = [str(script)] if start == "script" else ["-c", SCRIPT]

    done = subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout.split("\n")[:3] == ["the script runs", "one two", "None"], done.stderr
    assert done.returncode == 0
