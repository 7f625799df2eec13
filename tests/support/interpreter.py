"""Tests of Triton kernels in Triton's interpreter, on a CPU. It must be chosen before triton is
imported, and for a whole process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run_interpreted(tests: str, folder: Path) -> None:
    """Run a file of tests, from the root of the checkout, in a process with the interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", tests],
        cwd=REPOSITORY,
        env={**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
