"""Runs sections in processes under deadlines, and saves the report after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.gpu_check.report import Report, SectionReport
from tools.gpu_check.sections import Section

LOG_FILE = "gpu_check.log"
_LINES_FILE = "gpu_check.jsonl"
_POLL_S = 0.05
_IDLE_LIMIT_S = 60.0  # for a process to begin its first section, or the next one
_ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Watch:
    """Sections on a device, their report, and who hears when one ends."""

    sections: Mapping[str, Section]
    device: str
    out: Path
    ended: Callable[[str, SectionReport], None]
    report: Report = field(init=False)
    _running: str = ""  # the section that a process works on
    _since: float = 0.0  # when it began, or when the process began to look for one
    _read: int = 0  # bytes of the file of lines

    def __post_init__(self) -> None:
        self.report = Report(device=self.device)

    def run(self, total_s: float) -> Report:
        """Run all sections, but none beyond this time."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._lines.write_bytes(b"")
        end = time.monotonic() + total_s
        while (waiting := self._waiting()) and time.monotonic() < end:
            with self._process(waiting) as process:
                problem = self._follow(process, end)
            self._read_lines()  # what it wrote until it was killed
            if self._running:
                self._end(self._running, 0.0, problem)
            elif len(self._waiting()) == len(waiting):  # it does not even begin
                self._end(waiting[0], 0.0, f"{problem}; see {self.out / LOG_FILE}")
        self.report.left_out = self._waiting()
        self.report.save(self.out)
        self._lines.unlink()
        return self.report

    @property
    def _lines(self) -> Path:
        return self.out / _LINES_FILE

    def _waiting(self) -> list[str]:
        return [name for name in self.sections if name not in self.report.sections]

    @contextmanager
    def _process(self, names: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A process for these sections, killed with its children at the end of the block."""
        own = [f"{name}={self.sections[name].function}" for name in names]
        command = [sys.executable, "-m", "tools.gpu_check.worker"]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with (self.out / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [*command, str(self._lines), str(os.getpid()), self.device, *own],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running, self._since = "", time.monotonic()
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _follow(self, process: subprocess.Popen[bytes], end: float) -> str:
        """Read what a process writes until it ends or is too late. Returns how it ended."""
        while process.poll() is None:
            self._read_lines()
            running = self.sections.get(self._running)
            limit_s = running.limit_s if running else _IDLE_LIMIT_S
            if time.monotonic() - self._since > limit_s:
                return f"no end within {limit_s:g} s"
            if time.monotonic() > end:
                return "the time of all sections was over"
            time.sleep(_POLL_S)
        return f"its process ended with {process.returncode}"

    def _read_lines(self) -> None:
        with self._lines.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._read += len(line)
                self._hear(json.loads(line))

    def _hear(self, entry: dict[str, Any]) -> None:
        name = entry["section"]
        match entry["event"]:
            case "begin":
                self.report.sections[name] = SectionReport()
                self._running, self._since = name, time.monotonic()
            case "figure":
                self.report.sections[name].values[entry["name"]] = entry["value"]
            case "end":
                self._end(name, entry["seconds"], entry["problem"])

    def _end(self, name: str, seconds: float, problem: str) -> None:
        section = self.report.sections.setdefault(name, SectionReport())
        section.seconds = seconds or round(time.monotonic() - self._since, 1)
        section.problem, section.ended = problem, not problem
        self._running, self._since = "", time.monotonic()
        self.report.save(self.out)
        self.ended(name, section)
