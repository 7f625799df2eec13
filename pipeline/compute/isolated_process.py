"""Calls of a function on untrusted bytes in an isolated process, with a budget of time and memory.

A crash or an exceeded budget costs one result, not the calling process. This is needed because
image decoders are C code, in which a crash raises no exception. Linux enforces both budgets, macOS
only the time. The process imports only what its function needs.
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

_START_S = 120.0  # a machine under load needs seconds
_PAUSES_S = (0.0, 0.5, 2.0, 5.0)  # before each try to start
# A call may take this much longer than its CPU time, because it may wait for a core.
_WALL_FACTOR, _WALL_S = 6, 30.0
_PROBE_BYTES = 64 << 20  # every machine that decodes images must have this much memory
_COMMAND = "from pipeline.compute.isolated_process import main; main()"


class Refused(ValueError):
    """The bytes cannot be processed within the budget; the message is a cause that can be
    counted."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The CPU time and memory that one call may use."""

    cpu_s: float
    memory: int  # bytes, in addition to what the process uses when it is ready


@dataclass(slots=True, weakref_slot=True)
class Isolated(Generic[Answer]):
    """Calls a picklable function, one call at a time. The process starts at the first call.

    A call that ends the process is repeated in a fresh one, so that no bytes are refused because of
    the memory of other programs or because of an earlier call.
    """

    work: Callable[[bytes], Answer]
    budget: Budget
    _process: subprocess.Popen[bytes] | None = None
    _pipe: Connection | None = None
    _finalizers: list[weakref.finalize[Any, Any]] = field(default_factory=list)

    def __call__(self, body: bytes | memoryview) -> Answer:
        """Call the function.

        Raises:
            Refused: The bytes exceed the budget or crash the process.
            Shortage: This machine has too little memory or too few processes.
            Exception: Whatever the function raises.
        """
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
        """End the process. A later call starts another one."""
        for finalizer in self._finalizers:
            finalizer()
        self._finalizers.clear()
        self._process = self._pipe = None

    def start(self) -> None:
        """Start the process if none runs. Several tries are made, because other threads may use the
        last file descriptors for a moment. Raises Shortage."""
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
        """Start a process; returns it and our end of its pipe. Raises OSError."""
        ours, theirs = Pipe()
        # The current folder is not on the path, so that no file in it can replace a module.
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
        """A cause of refusal, or "" and the result."""
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
        """Raise Shortage if even a fresh process cannot allocate a little memory."""
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            probe = Isolated(_take_memory, Budget(self.budget.cpu_s, self.budget.memory))
            probe.start()
            cause, _ = probe._ask(b"")
            probe.close()
            if not cause:
                return
        raise Shortage(
            "this machine has no memory left to decode images: lower download.workers, "
            "download.threads or download.max_pixels_m, or end other programs"
        )


def _could_not_start(why: str) -> str:
    return (
        f"a process that decodes images could not be started ({why}): the limits on memory, "
        "processes or open files are too low (`ulimit -v`, `-u`, `-n`, or the container's limits); "
        "raise them, or lower download.workers and download.threads"
    )


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def main() -> None:
    """The main loop of the isolated process, which ends when its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the calling process decides when to stop
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
    signal.setitimer(signal.ITIMER_PROF, budget.cpu_s)  # its signal ends the process
    try:
        return None, work(body)
    except Exception as error:  # raised in the calling process
        return error, None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _take_memory(_body: bytes) -> int:
    return len(b"1" * _PROBE_BYTES)


def _limit(budget: Budget) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not Path("/proc/self/status").exists():
        return
    with suppress(OSError):  # if this is forbidden, the kernel kills the largest process first
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
