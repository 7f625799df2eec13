"""The built-in data set's image server: draws the picture that a URL describes, on loopback only.

It answers as an HTTP proxy for the reserved host name in the data set's URLs, so that the URLs stay
the same whatever port it got.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from data_catalog.shapes.dataset import Drawing


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        drawing = Drawing.from_url(self.path)
        if drawing is None:
            self.send_error(404, "no such drawing")
            return
        body = drawing.png()
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def serve_shapes() -> Iterator[str]:
    """Serve the data set for the length of the block; yields the address of the proxy."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
