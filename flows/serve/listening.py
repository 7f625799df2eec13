"""Listening sockets of the web services, their addresses for people, and the server's settings."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from flows.serve.connections import BACKLOG, connection_limit, limited_to
from flows.terminal.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to this address. Raises UserError if that is not possible."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be between 0 and 65535, got {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"cannot serve on --host {host}: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot serve on port {port} of {host}: {error.strerror}; choose another --port"
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL of a socket's server, without a slash at its end."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_settings(app: ASGIApp, shutdown_s: int) -> uvicorn.Config:
    """The settings of a server with connection limits. `shutdown_s` is how long it waits for
    running requests when it stops."""
    return uvicorn.Config(
        app,
        http=limited_to(connection_limit()),
        backlog=BACKLOG,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=shutdown_s,
    )


class AnnouncingServer(uvicorn.Server):
    """Server that prints what `announcement` makes of its address, once it answers."""

    def __init__(self, settings: uvicorn.Config, announcement: Callable[[str], str]) -> None:
        super().__init__(settings)
        self.announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            print(self.announcement(address_of(listening)), flush=True)
