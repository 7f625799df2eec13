"""Child processes import nothing from the folder in which a user starts a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ENVIRONMENT, REPOSITORY
from tests.support.small import small

CHILDREN = {
    "-m": "subprocess.run([sys.executable, '-m', 'pipeline.config.run'], check=True)",
    "-c": "subprocess.run([sys.executable, '-c', 'import logging, pipeline.config.run, queue'], check=True)",
    "spawn": "multiprocessing.get_context('spawn').Pool(1).apply(len, [[1, 2]])",
    "run_processes": "run_processes(['pipeline.config.run'], Path('log'), {0: {}}, 1, str)",
    "mlflow": "subprocess.run([sys.executable, '-m', 'uvicorn', 'flows:app'], env=_mlflow_environment(''), capture_output=True)",
    "server": "subprocess.run(server_command(0), env={**os.environ, 'PREFECT_HOME': 'nowhere'}, capture_output=True)",
}
SCRIPT = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
import flows
from pipeline.compute.child_processes import run_processes
from flows.cli.ui_servers import _mlflow_environment
from flows.orchestration.prefect_server import server_command
if __name__ == "__main__":
    {child}
"""


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("path", ["PYTHONPATH", "installed"])
def test_no_child_imports_from_the_current_folder(child: str, path: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    _occupy(theirs, tmp_path / "imported")
    script = (
        tmp_path / "tld"
    )  # an entry point, as pip makes one: its folder is the first on the path
    script.write_text(SCRIPT.format(child=CHILDREN[child]))
    environment = _unprotected()
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


def _occupy(folder: Path, imported: Path) -> None:
    """Put modules of the standard library's names and of ours into a folder. Each that is imported
    writes its name to the file `imported`."""
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
        (folder / f"{name}.py").write_text(f"open({str(imported)!r}, 'a').write({name!r})\n")
    for name in ("pipeline", "flows", "data_catalog", "tld_model"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(
            f"open({str(imported)!r}, 'a').write({name!r})\n"
        )


def _unprotected() -> dict[str, str]:
    """The environment of a user, who has heard of no safe path."""
    return {
        name: value
        for name, value in ENVIRONMENT.items()
        if name not in ("PYTHONSAFEPATH", "PYTHONPATH")
    }


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "last_stage"), [("local", "evaluate"), ("ray", "download")])
def test_a_run_imports_nothing_from_the_folder_where_it_is_typed(
    engine: str, last_stage: str, tmp_path: Path
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed")
    theirs, imported = tmp_path / "theirs", tmp_path / "imported"
    theirs.mkdir()
    _occupy(theirs, imported)
    settings = small(tmp_path / "data", engine__kind=engine, train__launch__processes=2)
    done = subprocess.run(
        [Path(sys.executable).parent / "tld", "run", "tiny", *settings, "--until", last_stage],
        cwd=theirs,
        env=_unprotected(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not imported.exists(), imported.read_text()


def test_the_command_of_a_module_leaves_the_current_folder_out(tmp_path: Path) -> None:
    theirs, imported = tmp_path / "theirs", tmp_path / "imported"
    (theirs / "pipeline").mkdir(parents=True)
    (theirs / "pipeline/__init__.py").write_text(f"open({str(imported)!r}, 'w')\n")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "config", "tiny"],
        cwd=theirs,
        env={**_unprotected(), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not imported.exists()


def test_a_checkout_that_is_not_installed_is_found_by_children_as_by_their_parent(
    tmp_path: Path,
) -> None:
    child = "[sys.executable, '-c', 'import pipeline.config.run']"
    code = f"import subprocess, sys, flows; subprocess.run({child}, check=True)"
    site = [path for path in sys.path if path.endswith("site-packages")][-1]
    environment = _unprotected()
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
