"""A run that something happens to: its workspace, its command, the moments at which to strike, and
what a user sees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from data_catalog.storage.workspace import OUTPUT_FOLDERS
from pipeline.compute.polling import wait_until
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.maintenance.verify import verify
from pipeline.stages.dag import STAGES
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import ENVIRONMENT, descendants, is_running, snapshot, start
from tests.support.small import TINY, small
from tests.support.waiting import wait_while_running

# The first thing of each stage that is finished: the stage has begun and has not ended.
FIRST_OF = {
    "download": "01_images/*/0*_stats.json",
    "encode": "02_encodings/*/0*_stats.json",
    "train": "03_model/*/checkpoints/step-*.pt",
    "evaluate": "references/*.safetensors",
}
UNFINISHED = {
    "download": "the shards that were being fetched",
    "encode": "the shards that were being encoded",
    "train": "the steps since the last checkpoint",
    "evaluate": "the report",
}
# In their command lines:
WORKER, TRAINING, PREFECT = "spawn_main", "pipeline.train.worker", "prefect.server.api.server"
DECODER = "pipeline.compute.isolated_process"
_TIMEOUT_S = 400


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user sees of a command that has ended."""

    code: int
    told: str
    seconds: float

    @property
    def message(self) -> str:
        """The line that tells of trouble, without its prefix: the first one of why the command
        ended, else the first one of something on the way; "" where all looks well."""
        for mark in ("tld: ", "warning: ", "damaged: "):
            for line in self.told.splitlines():
                if mark in line:
                    return line.partition(mark)[2]
        return ""

    def ended_with(self, code: int, message: str = "") -> None:
        """Assert how it ended, and that it was told as a person likes to be told."""
        assert self.code == code, self.told
        assert message in self.told
        assert bool(self.message) == bool(message or code > 0), self.told
        assert "Traceback" not in self.told
        assert "tld: unexpected" not in self.told
        assert code <= 0 or any(line.startswith("tld: ") for line in self.told.splitlines()), (
            self.told
        )


@dataclass(frozen=True, slots=True)
class Victim:
    """A workspace of its own, and the command that fills it."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    @property
    def arguments(self) -> list[str | Path]:
        return [
            TINY,
            *small(self.root, download__workers=1, encode__workers=1, train__checkpoint_every=2),
        ]

    @property
    def config(self) -> RunConfig:
        return load_config(TINY, [str(argument) for argument in self.arguments[1:]])

    def begin(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command on the workspace: `run`, where no other is named."""
        name, *options = command or ("run",)
        given = {**self.environment, **environment}
        return start(*name.split(), *self.arguments, *options, environment=given)

    def run(self, *command: str, **environment: str) -> Seen:
        return ended(self.begin(*command, **environment))

    def begin_until(
        self, stage: str, *, enough: int = 1, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a run and wait until it is in the middle of a stage."""
        process = self.begin(**environment)
        wait_while_running(lambda: len(list(self.root.glob(FIRST_OF[stage]))) >= enough, process)
        return process

    def digests(self) -> dict[str, str]:
        """The digest of each fresh stage, of whose files every byte is as it was made."""
        assert not verify(RunInputs(self.config)).damages
        return {
            name: status.manifest.digest
            for name, status in stage_statuses(RunInputs(self.config)).items()
            if status.manifest
        }

    def copy_from(self, other: Victim, before: str | None) -> Victim:
        """With the outputs of all stages before one, or of all of them."""
        names = list(STAGES)
        for name in names[: names.index(before)] if before else names:
            shutil.copytree(other.root / OUTPUT_FOLDERS[name], self.root / OUTPUT_FOLDERS[name])
        return self

    def finished(self) -> dict[str, tuple[int, int]]:
        """The files of finished shards, with their times and sizes."""
        shards = [
            receipt
            for stage in ("download", "encode")
            for receipt in self.root.glob(FIRST_OF[stage])
        ]
        names = {(receipt.parent, receipt.name.removesuffix("_stats.json")) for receipt in shards}
        files = snapshot(self.root)
        return {
            path: files[path]
            for path in files
            if (Path(path).parent, Path(path).name.partition(".")[0]) in names
        }


class Tell(Protocol):
    """Enter a fault into the table at the end."""

    def __call__(self, fault: str, seen: Seen, costs: str) -> None: ...


def assert_kept(victim: Victim, before: dict[str, tuple[int, int]]) -> None:
    """No finished shard was made again."""
    after = snapshot(victim.root)
    assert {path: after[path] for path in before} == before


def ended(process: subprocess.Popen[str]) -> Seen:
    """Wait for a command's end."""
    began = time.monotonic()
    told, _ = process.communicate(timeout=_TIMEOUT_S)
    return Seen(process.returncode, told, time.monotonic() - began)


def parts(process: subprocess.Popen[Any], of: str) -> list[int]:
    """The processes below a command that have a word in their command lines."""
    found = []
    for pid in descendants(process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        found += [pid] if of in words else []
    return found


def kill(process: subprocess.Popen[str], part: str) -> None:
    """kill -9 of what a command started."""
    struck = parts(process, part)
    assert struck, f"{part} does not run"
    for pid in struck:
        os.kill(pid, signal.SIGKILL)


def kill_driver(process: subprocess.Popen[str]) -> Seen:
    """kill -9 of the command itself; all that it started must end by itself."""
    below = descendants(process.pid)
    process.kill()
    seen = ended(process)
    assert wait_until(lambda: not any(map(is_running, below)), 60, every_s=0.05), below
    return seen


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own in a folder; skips where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Callable[[], None]:
    """Take what is left of a disk, to the last block; what is returned gives it back."""
    ballast, at = disk / "ballast", 0
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), at, size)
                    at += size
    return ballast.unlink
