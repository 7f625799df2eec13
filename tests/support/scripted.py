"""A loopback server that sends what a test says, byte for byte, and knows its connections."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HANG_UP = None
Script = Iterable[bytes | float | None]
"""Bytes are sent, numbers are seconds to wait, and HANG_UP ends the connection."""


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Scripted:
    """Where the server is, and the paths that it was asked for, by connection."""

    address: str
    port: int
    connections: list[list[str]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    most_open: int = 0
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> list[str]:
        return [path for paths in self.connections for path in paths]

    def wait_until_all_are_closed(self) -> bool:
        until = time.monotonic() + 10
        while self.open and time.monotonic() < until:
            time.sleep(0.01)
        return not self.open


@contextmanager
def serve_scripted(
    script: Callable[[str, int], Script], host: str = "127.0.0.1", certificate: Path | None = None
) -> Iterator[Scripted]:
    """Serve what `script` says for a path and the number of earlier requests on its connection."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if tls and certificate:
        tls.load_cert_chain(certificate)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # clients hang up
                client = self.request
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client = tls.wrap_socket(client, server_side=True) if tls else client
                with client, _counted(scripted) as paths:
                    _serve(client, scripted, paths, script)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 256

    with Server((host, 0), Handler) as server:
        port = server.server_address[1]
        scripted = Scripted(f"{'https' if tls else 'http'}://{host}:{port}", port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


@contextmanager
def _counted(scripted: Scripted) -> Iterator[list[str]]:
    paths = list[str]()
    with scripted.lock:
        scripted.connections.append(paths)
        scripted.open += 1
        scripted.most_open = max(scripted.most_open, scripted.open)
    try:
        yield paths
    finally:
        with scripted.lock:
            scripted.open -= 1


def _serve(
    client: socket.socket,
    scripted: Scripted,
    paths: list[str],
    script: Callable[[str, int], Script],
) -> None:
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            if not (piece := client.recv(4096)):
                return
            received += piece
        head, _, received = received.partition(b"\r\n\r\n")
        path = head.split()[1].decode()
        scripted.heads.append(head)
        paths.append(path)
        for step in script(path, len(paths) - 1):
            if step is HANG_UP:
                return
            if isinstance(step, bytes):
                client.sendall(step)
            else:
                time.sleep(step)
