"""A real HTTP server on loopback with pictures as the web has them: good, odd and broken."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

GOOD = 40


def photo(seed: int, size: tuple[int, int] = (150, 100)) -> Image.Image:
    """A soft colourful picture, wider than high."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    """A JPEG that a camera took upside down: its top is at the bottom of the file."""
    upright = Image.new("RGB", (80, 80), "blue")
    upright.paste((255, 0, 0), (0, 0, 80, 40))
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(upright.transpose(Image.Transpose.ROTATE_180), "JPEG", exif=exif)


def pictures() -> dict[str, bytes]:
    """Path -> body."""
    good = {f"/good/{i}.jpg": encoded(photo(i), "JPEG") for i in range(GOOD)}
    odd = {
        "/odd/transparent.png": encoded(Image.new("RGBA", (90, 90), (255, 0, 0, 0)), "PNG"),
        "/odd/grey.jpg": encoded(photo(1).convert("L"), "JPEG"),
        "/odd/cmyk.jpg": encoded(photo(2).convert("CMYK"), "JPEG"),
        "/odd/turned.jpg": turned(),
        "/odd/tiny.png": encoded(photo(3, (20, 14)), "PNG"),
    }
    broken = {
        "/broken/text.jpg": b"this is a text file that calls itself a picture",
        "/broken/truncated.jpg": encoded(photo(4, (400, 300)), "JPEG")[:3000],
    }
    return good | odd | broken


@contextmanager
def serve_images() -> Iterator[tuple[str, list[str]]]:
    """The address of the server, and the paths asked for so far."""
    bodies, asked = pictures(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = bodies.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def table(address: str) -> str:
    """A csv with one row for every picture, and rows that can't become one."""
    rows = ["url,caption"]
    rows += [f"{address}{path},a picture of {path.strip('/')}" for path in pictures()]
    rows += [f"{address}/gone/{i}.jpg,gone" for i in range(3)]
    rows += [
        f"{address}/good/0.jpg,the same again",
        f"{address}/good/empty.jpg,",
        "not a url,broken",
    ]
    rows[1] = f"{address}/good/0.jpg,ein schönes Bild – 写真 и картинка"
    return "\n".join(rows) + "\n"
