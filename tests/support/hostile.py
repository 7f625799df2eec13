"""A loopback server that does what strangers' servers do: redirects inwards, floods, drips, stalls,
asks to wait."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tests.support.images import encoded

FLOOD = 300 << 20
_PIECE = bytes(1 << 20)


def picture(edge: int = 80) -> bytes:
    return encoded(Image.linear_gradient("L").resize((edge, edge)).convert("RGB"), "PNG")


def png_bomb(edge: int = 16_000) -> bytes:
    """A PNG of edge² black pixels in a few hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    squeeze = zlib.compressobj(9)
    row = bytes(1 + 3 * edge)
    pixels = b"".join(squeeze.compress(row) for _ in range(edge)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@dataclass
class Hostile:
    """Where the server is, and what it was asked."""

    address: str
    asked: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    bytes_sent: int = 0
    agents: set[str] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _active: int = 0

    def begin(self, path: str, agent: str) -> int:
        with self.lock:
            self.asked[path] += 1
            self.agents.add(agent)
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
            return self.asked[path]

    def end(self) -> None:
        with self.lock:
            self._active -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    told: Hostile
    times: int  # that this path was asked for
    over = False  # this request

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.times = self.told.begin(parts.path, self.headers["User-Agent"])
        self.close_connection = True
        try:
            _, kind, *rest = parts.path.split("/")
            getattr(self, f"_{kind}")(*rest, **{k: v[0] for k, v in parse_qs(parts.query).items()})
        finally:
            self._over()

    def _over(self) -> None:
        if not self.over:
            self.told.end()
        self.over = True

    def _answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _picture(self, _name: str) -> None:
        self.told.stopping.wait(0.02)  # long enough for others to ask meanwhile
        self._over()  # before the last byte, after which the client may ask for more
        self._answer(picture())

    def _noise(self, _name: str) -> None:
        """About 200 KB."""
        self._answer(_NOISE)

    def _redirect(self, to: str) -> None:
        self._answer(status=302, Location=to)

    def _loop(self) -> None:
        self._answer(status=302, Location="/loop")

    def _flood(self, how: str) -> None:
        self.send_response(200)
        match how:
            case "told":
                self.send_header("Content-Length", str(FLOOD))
            case "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            case "headers":
                for i in range(FLOOD >> 20):
                    self.send_header(f"X-{i}", "x" * 60_000)
        self.end_headers()
        if how == "chunked":  # a length below zero: "all there is", to a careless reader
            self.wfile.write(b"-1\r\n")
        for _ in range(FLOOD // len(_PIECE)):
            self.wfile.write(_PIECE)
            self.told.bytes_sent += len(_PIECE)

    def _drip(self, where: str) -> None:
        if where == "body":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        drops = b"x" * 1000 if where == "body" else b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000
        for drop in drops:
            if self.told.stopping.wait(1):
                return
            self.wfile.write(bytes([drop]))
            self.wfile.flush()

    def _bomb(self, kind: str) -> None:
        if kind == "png":
            self._answer(_PNG_BOMB)
        else:
            self._answer(gzip.compress(bytes(64 << 20)), Content_Encoding="gzip")

    def _coding(self, *names: str) -> None:
        """A picture, plain, whatever its headers say."""
        self.send_response(200)
        for name in names:
            self.send_header("Content-Encoding", name)
        self.end_headers()
        self.wfile.write(picture())

    def _interim(self, status: str, times: str) -> None:
        """So many interim answers, then the picture."""
        for _ in range(int(times)):
            self.wfile.write(f"HTTP/1.1 {status} Interim\r\nLink: </style.css>\r\n\r\n".encode())
        self._answer(picture())

    def _busy(self, status: str, how: str) -> None:
        """Asks to wait once, then has the picture."""
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        if self.times > 1:
            self._answer(picture())
        else:
            self._answer(
                status=int(status), Retry_After={"seconds": "1", "date": later, "day": "86400"}[how]
            )

    def _status(self, status: str) -> None:
        self._answer(status=int(status))

    def _optout(self, how: str) -> None:
        headers: dict[str, Any] = {
            "all": {"X_Robots_Tag": "noai, noimageai"},
            "us": {"X_Robots_Tag": "tld: noindex"},
            "others": {"X_Robots_Tag": "otherbot: noai, noindex"},
            "expiry": {"X_Robots_Tag": "unavailable_after: 25 Jun 2040 15:00:00 PST"},
            "reservation": {"TDM_Reservation": "1"},
        }[how]
        self._answer(picture(), **headers)

    def _reset(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 100)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 100)

    def _garbage(self) -> None:
        self.wfile.write(b"\x00\xff\x00 not HTTP at all\r\n\r\n")

    def _silent(self, *_path: str) -> None:
        self.told.stopping.wait()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_args: object) -> None:
        """Clients hang up on such a server."""


_PNG_BOMB = png_bomb()
_NOISE = encoded(Image.effect_noise((450, 450), 100), "PNG")


@contextmanager
def serve_hostile(host: str = "127.0.0.1", certificate: Path | None = None) -> Iterator[Hostile]:
    """With a certificate (and its key) it speaks HTTPS."""

    class Handler(_Handler):
        pass

    with _Server((host, 0), Handler) as server:
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        told = Hostile(f"http://{host}:{server.server_address[1]}")
        Handler.told = told
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield told
        finally:
            told.stopping.set()
            server.shutdown()
            thread.join()


@contextmanager
def never_accepting(host: str = "127.0.0.1") -> Iterator[str]:
    """Its system answers the connection, the program never does."""
    with socket.create_server((host, 0), backlog=64) as listener:
        yield f"http://{host}:{listener.getsockname()[1]}"
