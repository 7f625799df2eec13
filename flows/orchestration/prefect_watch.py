"""A watch on the Prefect server, in a thread beside the work: warnings, and restarts of our own."""

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
_SILENT_S = 7.0  # until a warning is printed
_HUNG_S = 20.0  # until our own server is killed; a machine under heavy load may be this slow
_MOST_STARTS = 5
START_LIMIT_S = 90.0


class Silence:
    """The time since a server last answered."""

    def __init__(self, is_healthy: Callable[[float], bool]) -> None:
        """`is_healthy` asks the server, and waits a given number of seconds for an answer."""
        self._is_healthy = is_healthy
        self._answered_at = time.monotonic()
        self._starting_until = 0.0

    def seconds(self) -> float:
        """Seconds since the last answer; zero while a new server is starting."""
        if time.monotonic() - self._answered_at > _ASK_EVERY_S and self._is_healthy(_ASK_LIMIT_S):
            self._answered_at, self._starting_until = time.monotonic(), 0.0
        now = time.monotonic()
        return 0.0 if now < self._starting_until else now - self._answered_at

    def starts(self) -> None:
        """Allow a new server its time to start."""
        self._starting_until = time.monotonic() + START_LIMIT_S


@contextlib.contextmanager
def restarted(
    start: Callable[[], subprocess.Popen[bytes]],
    first: subprocess.Popen[bytes],
    is_healthy: Callable[[float], bool],
    on_lost: Callable[[], None],
) -> Iterator[None]:
    """Restart the server at the same port if it ends or hangs, for the length of the block.

    Its clients retry for a minute before they give up, and its records are in its database.
    `on_lost` is called when it has been restarted too often and will not be again.
    """
    servers = [first]

    def watch(ending: threading.Event) -> None:
        silence, has_warned = Silence(is_healthy), False
        while not ending.wait(_WATCH_S) and len(servers) < _MOST_STARTS:
            code = servers[-1].poll()
            if code is None:
                silent_s = silence.seconds()
                if silent_s > _SILENT_S and not has_warned:
                    say("prefect   warning: the Prefect server does not answer; continuing")
                has_warned = silent_s > _SILENT_S
                if silent_s < _HUNG_S or ending.is_set():
                    continue
                servers[-1].kill()
                servers[-1].wait()
            servers.append(start())
            silence.starts()
            why = "hung" if code is None else f"ended with exit code {code}"
            say(f"prefect   warning: the Prefect server {why}; restarting it")
        if not ending.is_set():
            on_lost()

    try:
        with _in_thread(watch):
            yield
    finally:
        stop(servers[-1])


@contextlib.contextmanager
def watched(api: str, is_healthy: Callable[[float], bool]) -> Iterator[None]:
    """Print when the user's server stops answering, and when it answers again."""

    def watch(ending: threading.Event) -> None:
        silence, has_warned = Silence(is_healthy), False
        while not ending.wait(_WATCH_S):
            silent_s = silence.seconds()
            if silent_s > _SILENT_S and not has_warned:
                say(
                    f"prefect   warning: {redact_credentials(api)} does not answer; work that "
                    "needs no Prefect continues"
                )
                has_warned = True
            elif silent_s < _ASK_EVERY_S and has_warned:
                say(f"prefect   {redact_credentials(api)} answers again")
                has_warned = False

    with _in_thread(watch):
        yield


def stop(server: subprocess.Popen[bytes]) -> None:
    """Terminate a server, and kill it if it does not end."""
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
