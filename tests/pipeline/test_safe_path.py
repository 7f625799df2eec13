"""Child processes import nothing from the folder in which a user starts a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

CHILDREN = {
    "-m": "subprocess.run([sys.executable, '-m', 'pipeline.config.run'], check=True)",
    "-c": "subprocess.run([sys.executable, '-c', 'import logging, pipeline.config.run, queue'], check=True)",
    "spawn": "multiprocessing.get_context('spawn').Pool(1).apply(len, [[1, 2]])",
    "run_processes": "run_processes(['pipeline.config.run'], Path('log'), {0: {}}, 1, str)",
    "server": "subprocess.run(server_command(0), env={**os.environ, 'PREFECT_HOME': 'nowhere'}, capture_output=True)",
}
SCRIPT = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
import flows
from pipeline.compute.child_processes import run_processes
from flows.orchestration.prefect_server import server_command
if __name__ == "__main__":
    {child}
"""


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("path", ["PYTHONPATH", "installed"])
def test_no_child_imports_from_the_current_folder(child: str, path: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in (
        "logging",
        "queue",
        "socket",
        "pickle",
        "random",
        "json",
        "starlette",
        "selectors",
    ):
        (theirs / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'w').write({name!r})\n"
        )
    for name in ("pipeline", "flows", "data_catalog"):
        (theirs / name).mkdir()
        (theirs / name / "__init__.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'w').write({name!r})\n"
        )
    script = (
        tmp_path / "tld"
    )  # an entry point, as pip makes one: its folder is the first on the path
    script.write_text(SCRIPT.format(child=CHILDREN[child]))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONSAFEPATH", "PYTHONPATH")
    }
    if path == "PYTHONPATH":
        environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        [sys.executable, script],
        cwd=theirs,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


def test_a_checkout_that_is_not_installed_is_found_by_children_as_by_their_parent(
    tmp_path: Path,
) -> None:
    child = "[sys.executable, '-c', 'import pipeline.config.run']"
    code = f"import subprocess, sys, flows; subprocess.run({child}, check=True)"
    site = [path for path in sys.path if path.endswith("site-packages")][-1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONSAFEPATH", "PYTHONPATH")
    }
    # Isolated from what is installed in this environment, but for the libraries.
    code = (
        f"import sys; sys.path = [p for p in sys.path if p != {str(REPOSITORY)!r}]\n"
        + code.replace(
            "import subprocess, sys, flows",
            f"import os, subprocess; sys.path.insert(0, {str(REPOSITORY)!r}); import flows",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": site},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
