"""Speed of the download: fetching over TLS with and without reused connections, and resizing.

python -m tools.download_speed fetch     # images/s of one worker, from one host and from many
python -m tools.download_speed resize    # images per second of CPU time, by size of the photograph
python -m tools.download_speed worker    # the same of a whole worker, from the URL to the shard
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from data_catalog.url_table.table import UrlShard
from pipeline.config.download import DownloadConfig
from pipeline.download.http import idle_connections
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.resize import SquareResizer
from pipeline.download.shard_downloader import ShardDownloader
from tests.support.certificates import self_signed
from tests.support.images import encoded
from tests.support.scripted import Script, answer, serve_scripted

_ROUNDS = 5
_HOSTS = 64
_EDGE = 256  # of the resized images
_SIZES = ((640, 480), (1600, 1200), (4000, 3000))
_THREADS = 32


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG with as much detail at each scale as photographs have: noise whose amplitude falls
    with its frequency."""
    rng, pixels = np.random.default_rng(seed), np.zeros((height, width, 3))
    for octave in range(1, 12):
        cells = 2**octave
        if cells > max(width, height):
            break
        noise = rng.standard_normal((max(2, cells * height // width), cells, 3))
        grown = [
            np.asarray(
                Image.fromarray(noise[..., channel].astype(np.float32)).resize(
                    (width, height), Image.Resampling.BICUBIC
                )
            )
            for channel in range(3)
        ]
        shared = np.mean(grown, axis=0) * 1.5  # brightness has more detail than colour
        pixels += np.stack([shared + 0.4 * channel for channel in grown], axis=-1) / octave**1.5
    pixels = 128 + 45 * pixels / pixels.std()
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=85)


def print_fetch(kilobytes: int, images: int) -> None:
    """Print images/s of one worker that gets all images from one host or from many, with and
    without reused connections, in turns."""
    with _served([os.urandom(kilobytes << 10)]) as port:
        works: dict[Any, Callable[[], float]] = {
            (hosts, reuse): partial(_fetch, port, images, hosts, reuse=reuse)
            for hosts in (1, _HOSTS)
            for reuse in (False, True)
        }
        speeds = _in_turns(works)
    for hosts in (1, _HOSTS):
        new, reused = speeds[hosts, False], speeds[hosts, True]
        ratios = [after / before for before, after in zip(new, reused, strict=True)]
        figures = {"new": new, "reused": reused, "reused_over_new": ratios}
        print(
            f"{hosts} hosts:", json.dumps({name: _spread(each) for name, each in figures.items()})
        )


def _fetch(port: int, images: int, hosts: int, *, reuse: bool) -> float:
    """Fetch that many images; returns images/s."""
    numbers = np.random.default_rng(0).integers(0, hosts, images)
    urls = [f"https://host{number}.test:{port}/{i}.jpg" for i, number in enumerate(numbers)]

    def fetch(url: str) -> None:
        opener.forget_body(len(opener.open(urllib.request.Request(url)).read()))

    longest = idle_connections._MAX_IDLE_S if reuse else 0.0
    with (
        patch.object(socket, "getaddrinfo", _resolve),
        patch.object(idle_connections, "_MAX_IDLE_S", longest),
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        opener = GuardedOpener(_config())
        started = time.perf_counter()
        list(threads.map(fetch, urls))
        seconds = time.perf_counter() - started
        opener.end_shard()
    return images / seconds


def _config(**changed: Any) -> DownloadConfig:
    settings: dict[str, Any] = {
        "urls": "none",
        "allowed_networks": ("127.0.0.0/8",),
        "host_requests_per_s": None,
        "workers": 1,
        "threads": _THREADS,
    }
    return DownloadConfig(**{**settings, **changed})


def _resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
    """Give each host an address of its own."""
    number = int(host.removeprefix("host").removesuffix(".test"))
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{1 + number}", port))]


@contextmanager
def _served(bodies: list[bytes]) -> Iterator[int]:
    """An HTTPS server in a process of its own, on all addresses of loopback; yields its port."""
    with tempfile.TemporaryDirectory(prefix="tld-download-") as folder:
        names = [f"host{number}.test" for number in range(_HOSTS)]
        certificate = self_signed(names, Path(folder))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=_serve, args=(bodies, certificate, theirs), daemon=True)
        server.start()
        with patch.dict(os.environ, {"SSL_CERT_FILE": str(certificate)}):
            yield ours.recv()
        ours.send("end")
        server.join()


def _serve(bodies: list[bytes], certificate: Path, pipe: Connection) -> None:
    """Serve /0.jpg, /1.jpg, … until something is sent."""
    responses = [answer(body, "200 OK", "Content-Type: image/jpeg") for body in bodies]

    def script(path: str, _earlier: int) -> Script:
        return [responses[int(path[1:].removesuffix(".jpg")) % len(responses)]]

    with serve_scripted(script, "0.0.0.0", certificate) as server:
        pipe.send(server.port)
        pipe.recv()


def print_resize(images: int) -> None:
    """Print how many photographs a core decodes, resizes and encodes in a second, as the stage does
    it and with JPEGs decoded at their full size, and how far the results are apart."""
    for width, height in _SIZES:
        bodies = [photograph(width, height, seed) for seed in range(4)]
        count = _count(images, height)
        speeds = _in_turns(
            {
                "draft": partial(_resize, bodies, count),
                "full": partial(_resize_full, bodies, count),
            }
        )
        ratios = [draft / full for draft, full in zip(speeds["draft"], speeds["full"], strict=True)]
        figures = {**speeds, "draft_over_full": ratios}
        print(
            f"{width}x{height}, {len(bodies[0]) >> 10} kB:",
            json.dumps({name: _spread(each) for name, each in figures.items()}),
            json.dumps(_differences(bodies)),
        )


def print_worker(images: int) -> None:
    """Print how many photographs a core fetches from one host, resizes and packs in a second."""
    for width, height in _SIZES:
        bodies = [photograph(width, height, seed) for seed in range(4)]
        with _served(bodies) as port:
            work = partial(_download_shard, port, _count(images, height))
            speeds = _in_turns({"worker": work})
        print(f"{width}x{height}:", json.dumps(_spread(speeds["worker"])))


def _download_shard(port: int, images: int) -> float:
    """Download one shard; returns images per second of CPU time of the worker and the process in
    which it decodes."""
    pairs = {
        "url": [f"https://host0.test:{port}/{number}.jpg" for number in range(images)],
        "caption": ["a caption"] * images,
        "split": [""] * images,
    }
    config = _config(image_size=_EDGE, shard_size=images)
    with (
        tempfile.TemporaryDirectory(prefix="tld-download-") as folder,
        patch.object(socket, "getaddrinfo", _resolve),
    ):
        downloader = ShardDownloader(config, Path(folder), "")
        downloader._decode.start()
        started = _cpu_s()
        assert downloader(UrlShard(0, pa.table(pairs))).rows == images
        seconds = _cpu_s() - started
        downloader._decode.close()
    return images / seconds


def _cpu_s() -> float:
    """CPU seconds of this process and of its children, the server's excepted."""
    server = {process.pid for process in multiprocessing.active_children()}
    processes = [psutil.Process(), *psutil.Process().children()]
    times = [process.cpu_times() for process in processes if process.pid not in server]
    return float(sum(one.user + one.system for one in times))


def _count(images: int, height: int) -> int:
    """Fewer images of larger ones."""
    return max(4, images * _SIZES[0][1] // height)


def _resizer(encode_format: str = "jpg") -> SquareResizer:
    return SquareResizer(_EDGE, encode_format, 95, _EDGE, 64e6, 4.0, hashes={})


def _resize(bodies: list[bytes], count: int) -> float:
    """Resize that many images in turn; returns images per second of CPU time."""
    resize, started = _resizer(), time.process_time()
    for number in range(count):
        assert resize(io.BytesIO(bodies[number % len(bodies)]))[0]
    return count / (time.process_time() - started)


def _resize_full(bodies: list[bytes], count: int) -> float:
    with _without_draft():
        return _resize(bodies, count)


@contextmanager
def _without_draft() -> Iterator[None]:
    with patch.object(JpegImageFile, "draft", lambda *_: None):
        yield


def _differences(bodies: list[bytes]) -> dict[str, float]:
    """Levels of 255 by which results from a reduced and a full decoding differ."""
    draft = _pixels(bodies)
    with _without_draft():
        full = _pixels(bodies)
    levels = np.abs(draft - full)
    return {
        "largest": float(levels.max()),
        "mean": round(float(levels.mean()), 3),
        "share_above_one": round(float((levels > 1).mean()), 4),
        "root_mean_square": round(float(np.sqrt(np.mean(levels**2))), 3),
    }


def _pixels(bodies: list[bytes]) -> np.ndarray[Any, np.dtype[np.float64]]:
    resize, squares = _resizer("png"), list[Any]()
    for body in bodies:
        square, *_ = resize(io.BytesIO(body))
        assert square
        squares.append(np.asarray(Image.open(io.BytesIO(square)), np.float64))
    return np.stack(squares)


def _in_turns(works: dict[Any, Callable[[], float]]) -> dict[Any, list[float]]:
    """The result of each work in each round, after one round to warm up."""
    results: dict[Any, list[float]] = {name: [] for name in works}
    for turn in range(_ROUNDS + 1):
        for name, work in works.items():
            result = work()
            if turn:
                results[name].append(result)
    return results


def _spread(values: list[float]) -> dict[str, float]:
    spread = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 2) for name, value in spread.items()}


def main() -> None:
    """Run the named measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("part", choices=["fetch", "resize", "worker"])
    parser.add_argument("--images", type=int, help="images in a round")
    parser.add_argument("--kilobytes", type=int, default=50, help="size of an image to fetch")
    options = parser.parse_args()
    if options.part == "fetch":
        print_fetch(options.kilobytes, options.images or 600)
    elif options.part == "resize":
        print_resize(options.images or 40)
    else:
        print_worker(options.images or 300)


if __name__ == "__main__":
    main()
