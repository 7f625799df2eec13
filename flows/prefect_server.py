"""A Prefect API server of our own for the length of a run: its home under the workspace, no telemetry.

A server given by PREFECT_API_URL is used instead. Prefect's ephemeral server starts slower, loses task
runs at exit and dies of a terminal's Ctrl-C before the flow could report.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from flows.progress import Progress
from pipeline.locks import StillHeld, held

_START_LIMIT_S = 90
_DRAIN_LIMIT_S = 20.0
_INTERRUPTED_DRAIN_LIMIT_S = 1.0
_WATCH_S = 0.5
_MOST_STARTS = 5
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    # Errors are told once, by the command line; Prefect's own log goes to its server.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}


class PrefectServerError(RuntimeError):
    """Our Prefect server did not start."""


def server_command(port: int) -> list[str]:
    """How to start the API server: plain uvicorn, which ends when this process does."""
    code = (
        "import os, sys, threading, time, uvicorn\n"
        "def watch(parent):\n"
        "    while os.getppid() == parent: time.sleep(0.5)\n"
        "    os._exit(1)\n"
        "threading.Thread(target=watch, args=(int(sys.argv[1]),), daemon=True).start()\n"
        "uvicorn.run('prefect.server.api.server:create_app', factory=True, host='127.0.0.1',"
        " port=int(sys.argv[2]), log_level='error', lifespan='on')\n"
    )
    return [sys.executable, "-c", code, str(os.getpid()), str(port)]


def server_environment(home: Path, port: int, ui: bool) -> dict[str, str]:
    """The environment of the API server."""
    environment = {
        **os.environ,
        **_QUIET,
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_UI_ENABLED": str(ui).lower(),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
    }
    environment.pop("PREFECT_API_URL", None)
    return environment


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of the Prefect API for the length of the block."""
    configured = os.environ.get("PREFECT_API_URL")
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    os.environ.setdefault("PREFECT_HOME", str(home.resolve()))
    home.mkdir(parents=True, exist_ok=True)  # else Prefect warns that it cannot
    if configured:
        yield configured
        return
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("ab") as log, _running(home, port, log), _configured(api):
        limit_s = _DRAIN_LIMIT_S
        try:
            yield api
        except KeyboardInterrupt:
            limit_s = _INTERRUPTED_DRAIN_LIMIT_S
            raise
        finally:
            _drain(api, limit_s)  # also of a failed flow: left undone, it is tried at exit, for a minute


@contextlib.contextmanager
def _running(home: Path, port: int, log: BinaryIO) -> Iterator[None]:
    """The server for the length of the block. Where it ends before, it is started again at the same port: its clients
    ask for a minute before they give up, and what it has recorded is in its database."""

    def start() -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal must not end it before the flow could report.
        environment = server_environment(home, port, ui=False)
        return subprocess.Popen(server_command(port), env=environment, stdout=log, stderr=log, start_new_session=True)

    with _first_in(home):
        server = start()
        try:
            _wait_until_healthy(server, f"http://127.0.0.1:{port}/api", home / "server.log")
        except BaseException:
            _stop(server)
            raise
    servers, ending = [server], threading.Event()
    watch = threading.Thread(target=_watch, args=(servers, ending, start), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ending.set()
        watch.join()
        _stop(servers[-1])


def _watch(
    servers: list[subprocess.Popen[bytes]], ending: threading.Event, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """Start the last server's successor when it has ended."""
    while not ending.wait(_WATCH_S) and len(servers) < _MOST_STARTS:
        code = servers[-1].poll()
        if code is not None:
            servers.append(start())
            Progress("prefect").finish(f"warning: the Prefect server ended with exit code {code}; it is started again")


@contextlib.contextmanager
def _first_in(home: Path) -> Iterator[None]:
    """Two servers that start at once would both make the database: one after the other. Raises PrefectServerError."""
    try:
        with held(home / "start.lock", _START_LIMIT_S):
            yield
    except StillHeld as error:
        raise PrefectServerError(str(error)) from None


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _configured(api: str) -> Iterator[None]:
    """Point this process at the server: through the environment, which plain threads see too."""
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = api
    refresh_global_settings_context()
    try:
        yield
    finally:
        del os.environ["PREFECT_API_URL"]
        refresh_global_settings_context()


def _wait_until_healthy(server: subprocess.Popen[bytes], api: str, log: Path) -> None:
    give_up = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise PrefectServerError(f"the Prefect server ended with exit code {server.returncode}; see {log}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=2):
            return
        time.sleep(0.1)
    raise PrefectServerError(f"the Prefect server did not start within {_START_LIMIT_S} s; see {log}")


def _drain(api: str, limit_s: float) -> None:
    """Send what the client still holds, then wait until the server has recorded all task runs: until
    their count has stood still for a second, or the time is up."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    give_up, last, still = time.monotonic() + limit_s, -1, 0
    APILogWorker.drain_all(timeout=min(5.0, limit_s))
    EventsWorker.drain_all(timeout=limit_s)
    with contextlib.suppress(OSError, http.client.HTTPException):  # a run that ended well must not fail of this
        while time.monotonic() < give_up and still < 2:
            count = _task_runs(api)
            still = still + 1 if count == last else 0
            last = count
            time.sleep(0.5)


def _task_runs(api: str) -> int:
    request = urllib.request.Request(f"{api}/task_runs/count", data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.read())


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
