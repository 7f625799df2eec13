"""The image server of the shapes data set: draws the image that a URL encodes, on loopback only.

It acts as an HTTP proxy for the reserved host name in the data set's URLs, so that the URLs do not
depend on the port.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from data_catalog.shapes.dataset import Drawing


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise a body waits up to 40 ms for the client to acknowledge its headers.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        drawing = Drawing.from_url(self.path)
        if drawing is None:
            self.send_error(404, "this URL encodes no drawing")
            return
        body = drawing.png()
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _ShapesServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def serve_shapes() -> Iterator[str]:
    """Serve the data set while the block runs. Yields the address of the proxy."""
    with _ShapesServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
