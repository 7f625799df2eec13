"""A Prefect API server of our own for the length of a run, with its data in the workspace.

If PREFECT_API_URL names a server, that one is used instead. Prefect's ephemeral server is not used
because it starts slower, loses task runs at exit, and is ended by Ctrl-C in the terminal before the
flow can report.

Nobody else can use our server: it has a new secret at each start, a guard in front
(prefect_app.py), and none of the settings that a user has for other Prefect servers. It sends no
telemetry.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from data_catalog.storage.file_lock import LockTimeout, file_lock
from flows.orchestration.background import in_background
from flows.orchestration.prefect_api import drain, is_healthy
from flows.orchestration.prefect_app import USER, origins
from flows.orchestration.prefect_home import database_may_be_the_cause, prepare_home, set_aside
from flows.orchestration.prefect_watch import START_LIMIT_S, restarted, stop
from flows.orchestration.proxies import unusable_proxies
from pipeline.compute.polling import wait_until

_DRAIN_LIMIT_S = 20.0
_INTERRUPTED_DRAIN_LIMIT_S = 1.0
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    # The command line prints each error once; Prefect's own log goes to its server.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}

# With these, a request to a user's server that hangs takes about a minute; by default it is seven.
_CLIENT_LIMITS = {"PREFECT_API_REQUEST_TIMEOUT": "15", "PREFECT_CLIENT_MAX_RETRIES": "3"}


class PrefectServerError(RuntimeError):
    """Our Prefect server did not start."""


def server_command(port: int, listener: int = -1) -> list[str]:
    """The command that starts the API server at a port, or on a socket that listens there. The
    server ends when this process does."""
    application = "prefect.server.api.server:create_app"
    command = [sys.executable, "-m", "flows.orchestration.prefect_app"]
    return [*command, application, str(os.getpid()), str(port), str(listener)]


def server_environment(home: Path, port: int, *, ui: bool) -> dict[str, str]:
    """The environment of the API server, with a new secret, which clients send as
    PREFECT_API_AUTH_STRING."""
    return {
        **{name: value for name, value in os.environ.items() if not _is_of_prefect(name)},
        **_QUIET,
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{secrets.token_urlsafe(32)}",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins(port)),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_ENABLED": str(ui).lower(),
        # Nothing here uses Prefect's blocks, and to record their types takes seconds.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
    }


@contextlib.contextmanager
def prefect_server(home: Path, meanwhile: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The address of the Prefect API for the length of the block. Our server takes seconds to
    start, and `meanwhile` is called in that time, in a thread. What it raises is raised here.

    Raises:
        PrefectServerError: our server does not start.
        UserError: its folder in the workspace is not writable.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    if configured := os.environ.get("PREFECT_API_URL"):
        for name, value in {**_CLIENT_LIMITS, "PREFECT_HOME": str(home.resolve())}.items():
            os.environ.setdefault(name, value)
        home.mkdir(parents=True, exist_ok=True)  # else Prefect warns that it cannot write there
        yield configured
        return
    prepare_home(home)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        (home / "server.log").open("ab") as log,
    ):
        port = int(listener.getsockname()[1])
        api, environment = f"http://127.0.0.1:{port}/api", server_environment(home, port, ui=False)
        with (
            _client_of(api, environment),
            _running(home, listener, environment, log, meanwhile),
        ):
            limit_s = _DRAIN_LIMIT_S
            try:
                yield api
            except KeyboardInterrupt:
                limit_s = _INTERRUPTED_DRAIN_LIMIT_S
                raise
            finally:
                # After a failed flow too, because otherwise Prefect tries it at exit for a minute.
                drain(api, limit_s)


@contextlib.contextmanager
def _running(
    home: Path,
    listener: socket.socket,
    environment: Mapping[str, str],
    log: BinaryIO,
    meanwhile: Callable[[], None],
) -> Iterator[None]:
    """The server for the length of the block, restarted if it ends before. Its clients are never
    refused a connection, because this process holds the socket."""
    api, shared = environment["PREFECT_UI_API_URL"], listener.fileno()
    command = server_command(int(listener.getsockname()[1]), shared)

    def start() -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C does not end it before the flow can report.
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

    prepared = in_background(meanwhile)
    with _exclusive_start(home):
        start_of_log = log.tell()
        try:
            server = started()
        except PrefectServerError:
            text = (home / "server.log").read_bytes()[start_of_log:].decode(errors="replace")
            if not database_may_be_the_cause(home, text):
                raise
            set_aside(home)
            prepare_home(home)
            server = started()
    with restarted(start, server, functools.partial(is_healthy, api), listener.close):
        prepared.result()
        yield


@contextlib.contextmanager
def _exclusive_start(home: Path) -> Iterator[None]:
    """Only one server at a time may start in a folder, because each would create the database.
    Raises PrefectServerError if another takes too long."""
    try:
        with file_lock(home / "start.lock", START_LIMIT_S):
            yield
    except LockTimeout as error:
        raise PrefectServerError(str(error)) from None


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_of_prefect(name: str) -> bool:
    """Whether a variable is one of Prefect's, which ignores upper and lower case."""
    return name.upper().startswith("PREFECT_")


@contextlib.contextmanager
def _client_of(api: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Point this process at our server through the environment, which plain threads see too.

    The user's own Prefect settings are removed meanwhile, because a key, headers and certificates
    are meant for another server.
    """
    theirs = {name: os.environ.pop(name) for name in _foreign_variables()}
    logging = {name: value for name, value in theirs.items() if name.startswith("PREFECT_LOGGING_")}
    ours = {name: environment[name] for name in (*_QUIET, "PREFECT_HOME")}
    secret = environment["PREFECT_SERVER_API_AUTH_STRING"]
    os.environ.update(
        {**ours, **logging, "PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": secret}
    )
    _read_settings_again()
    try:
        yield
    finally:
        for name in filter(_is_of_prefect, list(os.environ)):
            del os.environ[name]
        os.environ.update(theirs)
        with contextlib.suppress(ValueError):  # the user's own settings may be invalid
            _read_settings_again()


def _read_settings_again() -> None:
    """Let Prefect's client see a changed environment. If Prefect is not imported yet, which takes
    seconds, its import will."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def _foreign_variables() -> list[str]:
    """Variables that are meant for another server, or that Prefect's client cannot use."""
    return [*filter(_is_of_prefect, os.environ), *unusable_proxies()]


def _wait_until_healthy(server: subprocess.Popen[bytes], api: str, log: Path) -> None:
    is_in_time = wait_until(
        lambda: server.poll() is not None or is_healthy(api, 2), START_LIMIT_S, every_s=0.1
    )
    if server.poll() is not None:
        raise PrefectServerError(
            f"the Prefect server ended with exit code {server.returncode}; see {log}"
        )
    if not is_in_time:
        raise PrefectServerError(
            f"the Prefect server did not start within {START_LIMIT_S:.0f} s; see {log}"
        )
