"""A function that works on the bytes of strangers in a process of its own, with a budget of time
and memory a call: what crashes or outlasts that process costs one answer and not the process that
asks.

Decoders of pictures are C code, which no exception stops. Linux keeps the budgets; macOS keeps only
that of time. The process imports nothing but what its function needs.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pipeline.compute.resource_limits import Shortage

Answer = TypeVar("Answer")
TOO_SLOW = "takes too long to decode"
TOO_LARGE = "takes too much memory to decode"
CRASHED = "ends the process that decodes it"

_START_S = 120.0  # a machine under load takes seconds
_PAUSES_S = (0.0, 0.5, 2.0, 5.0)  # before each try to start
_WALL_FACTOR, _WALL_S = 6, 30.0  # a call may wait for a core so much longer than it computes
_PROBE_BYTES = 64 << 20  # bytes that every machine which works on pictures must have
_COMMAND = "from pipeline.compute.isolated_process import main; main()"


class Refused(ValueError):
    """The bytes cannot be worked on within the budget; the message is a cause that can be
    counted."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one call may cost."""

    cpu_s: float
    memory: int  # bytes, beside what the process has when it is ready


@dataclass(slots=True, weakref_slot=True)
class Isolated(Generic[Answer]):
    """Calls a function that can be pickled. One call at a time; the process starts at the first.

    Who takes the process down is asked about again in a fresh one: nobody is blamed for the memory
    of others, or for what an earlier call left.
    """

    work: Callable[[bytes], Answer]
    budget: Budget
    _process: subprocess.Popen[bytes] | None = None
    _pipe: Connection | None = None
    _finalizers: list[weakref.finalize[Any, Any]] = field(default_factory=list)

    def __call__(self, body: bytes | memoryview) -> Answer:
        """The function's answer. Raises Refused, Shortage, or what the function raises."""
        cause, answer = "", cast(Any, None)
        for _ in range(2):
            self.start()
            cause, answer = self._ask(body)
            if not cause:
                break
            self.close()
            if cause == TOO_SLOW:
                break
        if cause == TOO_LARGE:
            self._check_machine_memory()
        if cause:
            raise Refused(cause)
        result: Answer = answer
        return result

    def close(self) -> None:
        """End the process; a later call starts another."""
        for finalizer in self._finalizers:
            finalizer()
        self._finalizers.clear()
        self._process = self._pipe = None

    def start(self) -> None:
        """Start the process if none runs. Others of this process may have taken the last
        descriptors for a moment: it is tried again. Raises Shortage."""
        if self._process and self._process.poll() is None:
            return
        self.close()
        problem = ""
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            try:
                process, ours = self._launch()
                break
            except OSError as error:
                problem = str(error)
        else:
            raise Shortage(_could_not_start(problem))
        self._process, self._pipe = process, ours
        self._finalizers.append(weakref.finalize(self, _end, process, ours))
        try:
            ours.send((self.work, self.budget))
            ready = ours.poll(_START_S) and ours.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise Shortage(_could_not_start(f"exit code {process.returncode}"))

    def _launch(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """A process, and our end of its pipe. Raises OSError."""
        ours, theirs = Pipe()
        # The folder of the command is left out of the path: no file there stands in for a module.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        output = None if os.environ.get("TLD_TRACEBACK") else subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,  # C libraries write to it
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours

    def _ask(self, body: bytes | memoryview) -> tuple[str, Any]:
        """A cause of refusal, or "" and the answer."""
        assert self._pipe
        assert self._process
        timeout_s = _WALL_FACTOR * self.budget.cpu_s + _WALL_S
        try:
            self._pipe.send_bytes(body)
            if not self._pipe.poll(timeout_s):
                return TOO_SLOW, None
            error, answer = self._pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            return {-signal.SIGPROF: TOO_SLOW, -signal.SIGKILL: TOO_LARGE}.get(code, CRASHED), None
        if isinstance(error, MemoryError):
            return TOO_LARGE, None
        if error is not None:
            raise error
        return "", answer

    def _check_machine_memory(self) -> None:
        """Raises Shortage where a fresh process cannot even have a little."""
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            probe = Isolated(_take_memory, Budget(self.budget.cpu_s, self.budget.memory))
            probe.start()
            cause, _ = probe._ask(b"")
            probe.close()
            if not cause:
                return
        raise Shortage(
            "the machine has no memory left to decode pictures: lower download.workers, "
            "download.threads "
            "or download.max_pixels_m, or end other programs"
        )


def _could_not_start(why: str) -> str:
    return (
        f"a process that decodes pictures could not be started ({why}): too little memory, too few "
        "processes or open files are allowed (`ulimit -v`, `-u`, `-n`, or the container's limits); "
        "raise them, or "
        "lower download.workers and download.threads"
    )


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def main() -> None:
    """The life of the process: it ends when its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides when to stop
    pipe: Connection[Any, Any] = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        work, budget = pipe.recv()
        _limit(budget)
        pipe.send(True)
        while True:
            pipe.send(_answer(work, pipe.recv_bytes(), budget))


def _answer(
    work: Callable[[bytes], Any], body: bytes, budget: Budget
) -> tuple[Exception | None, Any]:
    signal.setitimer(signal.ITIMER_PROF, budget.cpu_s)  # whose signal ends the process
    try:
        return None, work(body)
    except Exception as error:  # the caller's to raise
        return error, None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _take_memory(_body: bytes) -> int:
    return len(b"1" * _PROBE_BYTES)


def _limit(budget: Budget) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not Path("/proc/self/status").exists():
        return
    with suppress(OSError):  # where it is not allowed, whoever is largest goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    used = next(
        line
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("VmData")
    )
    limit = int(used.split()[1]) * 1024 + budget.memory
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (math.ceil(limit), hard))
