"""`tld` as a user runs it: another process, its output and its exit code."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CANARY = "canary-3f9a1c"  # a secret of the user's, which no output may hold
ENVIRONMENT = {
    **{
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_"))
    },
    "HF_HUB_OFFLINE": "1",
    **dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"), CANARY),
}


def tld(*arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def start(
    *arguments: str | Path, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that its whole tree can be killed."""
    return subprocess.Popen(
        command(*arguments),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli", *map(str, arguments)]


def descendants(pid: int) -> list[int]:
    """All processes below one, whatever sessions they are in."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(child) for path in children for child in path.read_text().split()]
    return direct + [below for child in direct for below in descendants(child)]


def is_running(pid: int) -> bool:
    """Whether a process is there, and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its time and size; of a run that works, some may go
    meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found
