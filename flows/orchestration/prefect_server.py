"""A Prefect API server of our own for the length of a run: its home under the workspace, no
telemetry.

A server given by PREFECT_API_URL is used instead. Prefect's ephemeral server starts slower, loses
task runs at exit and dies of a terminal's Ctrl-C before the flow could report.

Ours is closed to everybody else: a secret made at each start, a guard before it (prefect_app.py),
and none of the settings that a user has for other Prefect servers.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from data_catalog.storage.file_lock import LockTimeout, file_lock
from flows.orchestration.prefect_app import USER, origins
from flows.orchestration.prefect_home import database_may_be_the_cause, prepare_home, set_aside
from flows.orchestration.prefect_watch import START_LIMIT_S, restarted, stop
from flows.orchestration.proxies import unusable_proxies

_DRAIN_LIMIT_S = 20.0
_INTERRUPTED_DRAIN_LIMIT_S = 1.0
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    # Errors are told once, by the command line; Prefect's own log goes to its server.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}


# With a server that is given and hangs: about a minute for each question. Prefect's own is seven.
_PATIENCE = {"PREFECT_API_REQUEST_TIMEOUT": "15", "PREFECT_CLIENT_MAX_RETRIES": "3"}


class PrefectServerError(RuntimeError):
    """Our Prefect server did not start."""


def server_command(port: int, listener: int = -1) -> list[str]:
    """How to start the API server, which ends when this process does, at a port or a socket that
    listens there."""
    application = "prefect.server.api.server:create_app"
    command = [sys.executable, "-m", "flows.orchestration.prefect_app"]
    return [*command, application, str(os.getpid()), str(port), str(listener)]


def server_environment(home: Path, port: int, ui: bool) -> dict[str, str]:
    """The environment of the API server, with a new secret. Clients send it as
    PREFECT_API_AUTH_STRING."""
    return {
        **{name: value for name, value in os.environ.items() if not _is_of_prefect(name)},
        **_QUIET,
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{secrets.token_urlsafe(32)}",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins(port)),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_ENABLED": str(ui).lower(),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
    }


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of the Prefect API for the length of the block. Raises PrefectServerError,
    UserError."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    if configured := os.environ.get("PREFECT_API_URL"):
        for name, value in {**_PATIENCE, "PREFECT_HOME": str(home.resolve())}.items():
            os.environ.setdefault(name, value)
        home.mkdir(parents=True, exist_ok=True)  # else Prefect warns that it cannot
        yield configured
        return
    prepare_home(home)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        (home / "server.log").open("ab") as log,
    ):
        port = int(listener.getsockname()[1])
        api, environment = f"http://127.0.0.1:{port}/api", server_environment(home, port, ui=False)
        with _running(home, listener, environment, log), _client_of(api, environment):
            limit_s = _DRAIN_LIMIT_S
            try:
                yield api
            except KeyboardInterrupt:
                limit_s = _INTERRUPTED_DRAIN_LIMIT_S
                raise
            finally:
                _drain(
                    api, limit_s
                )  # also of a failed flow: left undone, it is tried at exit, for a minute


@contextlib.contextmanager
def _running(
    home: Path, listener: socket.socket, environment: Mapping[str, str], log: BinaryIO
) -> Iterator[None]:
    """The server for the length of the block, started again where it ends before. Its clients never
    see the door closed: the socket is ours."""
    api, shared = environment["PREFECT_UI_API_URL"], listener.fileno()
    command = server_command(int(listener.getsockname()[1]), shared)

    def start() -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal must not end it before the flow could report.
        return subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[shared],
        )

    def started() -> subprocess.Popen[bytes]:
        server = start()
        try:
            _wait_until_healthy(server, api, home / "server.log")
        except BaseException:
            stop(server)
            raise
        return server

    with _first_in(home):
        begins_at = log.tell()
        try:
            server = started()
        except PrefectServerError:
            told = (home / "server.log").read_bytes()[begins_at:].decode(errors="replace")
            if not database_may_be_the_cause(home, told):
                raise
            set_aside(home)
            prepare_home(home)
            server = started()
    with restarted(start, server, functools.partial(is_healthy, api), listener.close):
        yield


@contextlib.contextmanager
def _first_in(home: Path) -> Iterator[None]:
    """Two servers that start at once would both make the database: one after the other. Raises
    PrefectServerError."""
    try:
        with file_lock(home / "start.lock", START_LIMIT_S):
            yield
    except LockTimeout as error:
        raise PrefectServerError(str(error)) from None


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_of_prefect(name: str) -> bool:
    """Whether a variable is one of Prefect's, which does not mind upper and lower case."""
    return name.upper().startswith("PREFECT_")


@contextlib.contextmanager
def _client_of(api: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Point this process at our server, through the environment, which plain threads see too.

    Prefect settings of the user's own are put aside: a key, headers, certificates are for another
    server.
    """
    theirs = {name: os.environ.pop(name) for name in _names_of_others()}
    logging = {name: value for name, value in theirs.items() if name.startswith("PREFECT_LOGGING_")}
    ours = {name: environment[name] for name in (*_QUIET, "PREFECT_HOME")}
    secret = environment["PREFECT_SERVER_API_AUTH_STRING"]
    os.environ.update(
        {**ours, **logging, "PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": secret}
    )
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    try:
        yield
    finally:
        for name in filter(_is_of_prefect, list(os.environ)):
            del os.environ[name]
        os.environ.update(theirs)
        with contextlib.suppress(ValueError):  # of settings of theirs
            refresh_global_settings_context()


def _names_of_others() -> list[str]:
    """Variables that are for another server, or no use to Prefect's client."""
    return [*filter(_is_of_prefect, os.environ), *unusable_proxies()]


def _wait_until_healthy(server: subprocess.Popen[bytes], api: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise PrefectServerError(
                f"the Prefect server ended with exit code {server.returncode}; see {log}"
            )
        if is_healthy(api, 2):
            return
        time.sleep(0.1)
    raise PrefectServerError(
        f"the Prefect server did not start within {START_LIMIT_S:.0f} s; see {log}"
    )


def _drain(api: str, limit_s: float) -> None:
    """Send what the client still holds, then wait until the server has recorded all task runs:
    until their count has stood still for a second, or the time is up."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    deadline, last, still = time.monotonic() + limit_s, -1, 0
    APILogWorker.drain_all(timeout=min(5.0, limit_s))
    EventsWorker.drain_all(timeout=limit_s)
    with contextlib.suppress(
        OSError, http.client.HTTPException, ValueError
    ):  # a run that ended well must not fail of it
        while time.monotonic() < deadline and still < 2:
            count = ask(api, "/task_runs/count", {})
            still = still + 1 if count == last else 0
            last = count
            time.sleep(0.5)


def ask(api: str, path: str, body: object = None, limit_s: float = 10.0) -> Any:
    """What our own server answers, without Prefect's client, which tries again for minutes, and
    without the proxies of the environment. A body is posted. Raises OSError, HTTPException,
    ValueError."""
    there = urlsplit(api)
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    if body is not None:
        client = secrets.token_hex(8)
        token = ask(api, f"/csrf-token?client={client}", limit_s=limit_s)
        if isinstance(token, dict):
            headers |= {
                "Prefect-Csrf-Client": client,
                "Prefect-Csrf-Token": str(token.get("token")),
            }
    connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=limit_s)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", f"{there.path}{path}", data, headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status >= 400:
            raise http.client.HTTPException(f"{path}: {answer.status} {told[:200]!r}")
        return json.loads(told)


def is_healthy(api: str, limit_s: float) -> bool:
    """Whether our server answers."""
    try:
        return ask(api, "/health", limit_s=limit_s) is True
    except (OSError, http.client.HTTPException, ValueError):
        return False
