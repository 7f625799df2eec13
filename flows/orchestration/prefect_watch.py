"""Whether a Prefect server answers: asked in a thread beside the work, said once, and mended where
it is ours."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from data_catalog.redaction import redact_credentials
from flows.terminal.console import say

_WATCH_S = 0.5
_ASK_EVERY_S = 2.0
_ASK_LIMIT_S = 3.0
_SILENT_S = 7.0  # until a person is told
_HUNG_S = (
    20.0  # until our own server is ended: a machine that is short of everything may be so slow
)
_MOST_STARTS = 5
START_LIMIT_S = 90.0


class Silence:
    """How long a server has not answered."""

    def __init__(self, is_healthy: Callable[[float], bool]) -> None:
        """`is_healthy` asks the server, and waits so many seconds for an answer."""
        self._is_healthy = is_healthy
        self._answered_at = time.monotonic()
        self._starting_until = 0.0

    def seconds(self) -> float:
        """Since the last answer; zero while a new server is starting."""
        if time.monotonic() - self._answered_at > _ASK_EVERY_S and self._is_healthy(_ASK_LIMIT_S):
            self._answered_at, self._starting_until = time.monotonic(), 0.0
        now = time.monotonic()
        return 0.0 if now < self._starting_until else now - self._answered_at

    def starts(self) -> None:
        """A new server is given time to start."""
        self._starting_until = time.monotonic() + START_LIMIT_S


@contextlib.contextmanager
def restarted(
    start: Callable[[], subprocess.Popen[bytes]],
    first: subprocess.Popen[bytes],
    is_healthy: Callable[[float], bool],
    on_lost: Callable[[], None],
) -> Iterator[None]:
    """Start the server's successor, at the same port, when it has ended or hangs, until the end of
    the block.

    Its clients ask for a minute before they give up, and what it has recorded is in its database.
    `on_lost` is called once no other will be started.
    """
    servers = [first]

    def watch(ending: threading.Event) -> None:
        silence, is_told = Silence(is_healthy), False
        while not ending.wait(_WATCH_S) and len(servers) < _MOST_STARTS:
            code = servers[-1].poll()
            if code is None:
                silent_s = silence.seconds()
                if silent_s > _SILENT_S and not is_told:
                    say("prefect   warning: the Prefect server does not answer; the work goes on")
                is_told = silent_s > _SILENT_S
                if silent_s < _HUNG_S or ending.is_set():
                    continue
                servers[-1].kill()
                servers[-1].wait()
            servers.append(start())
            silence.starts()
            why = "hung" if code is None else f"ended with exit code {code}"
            say(f"prefect   warning: the Prefect server {why}; it is started again")
        if not ending.is_set():
            on_lost()

    try:
        with _in_thread(watch):
            yield
    finally:
        stop(servers[-1])


@contextlib.contextmanager
def watched(api: str, is_healthy: Callable[[float], bool]) -> Iterator[None]:
    """Say when a server that is not ours stops answering, and when it is back."""

    def watch(ending: threading.Event) -> None:
        silence, is_told = Silence(is_healthy), False
        while not ending.wait(_WATCH_S):
            silent_s = silence.seconds()
            if silent_s > _SILENT_S and not is_told:
                say(
                    f"prefect   warning: {redact_credentials(api)} does not answer; what needs no "
                    "Prefect goes on"
                )
                is_told = True
            elif silent_s < _ASK_EVERY_S and is_told:
                say(f"prefect   {redact_credentials(api)} answers again")
                is_told = False

    with _in_thread(watch):
        yield


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server, by force where it does not end by itself."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def _in_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    ending = threading.Event()
    thread = threading.Thread(target=work, args=(ending,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
