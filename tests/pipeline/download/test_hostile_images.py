"""One picture that crashes, outlasts or fills whatever decodes it costs its own row, in both
stages."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from data_catalog import images as packed_images
from data_catalog.excluded_rows import read_dropped
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from pipeline.compute.isolated_process import Budget
from pipeline.compute.resource_limits import Shortage
from pipeline.compute.shard_map import map_in_pool
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.download import shard_downloader
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.stages.contract import MapShards, Output, StageFailed
from tests.support.bombs import jpeg_of_scans
from tests.support.fragile import Fragile
from tests.support.image_shards import images_manifest, make_images, read_image_pairs
from tests.support.images import encoded, photo
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker

GOOD = {f"good {number}": encoded(photo(number), "PNG") for number in range(6)}
HOSTILE = {
    b"crash": "ends the process that decodes it",
    b"killed": "takes too much memory to decode",
}
HOSTILE |= {b"compute": "takes too long to decode", jpeg_of_scans(1000): "takes too long to decode"}


@contextmanager
def serve(bodies: list[bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies[int(self.path.strip("/"))]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetch(folder: Path, pictures: dict[str, bytes], **settings: Any) -> Output:
    """A download of pictures by caption."""
    out = folder / "out"
    out.mkdir(parents=True)
    with serve(list(pictures.values())) as address:
        rows = [f"{address}/{number},{caption}" for number, caption in enumerate(pictures)]
        table = folder / "urls.csv"
        table.write_text("\n".join(["url,caption", *rows]) + "\n")
        config = DownloadConfig(
            **{
                "urls": str(table),
                "image_size": 64,
                "image_format": "png",
                "threads": 2,
                "host_requests_per_s": None,
                "min_success_rate": 0,
                "allowed_networks": ["127.0.0.0/8"],
                **settings,
            }
        )
        return download(config, out, RememberingTracker(), map_here)


def pixels_by_caption(folder: Path) -> dict[str, bytes]:
    return {
        pair.caption: pair.image.tobytes()
        for pair in read_image_pairs(folder / "out" / "00000.tar")
    }


@pytest.mark.slow
def test_each_costs_its_own_row_of_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(tmp_path / "without", GOOD)
    monkeypatch.setattr(shard_downloader, "SquareResizer", Fragile)
    monkeypatch.setattr(
        shard_downloader, "_budget_of", lambda _: Budget(cpu_s=0.5, memory=300 << 20)
    )
    hostile = {f"hostile {number}": body for number, body in enumerate(HOSTILE)}
    output = fetch(tmp_path / "with", {**hostile, **GOOD})

    assert pixels_by_caption(tmp_path / "with") == pixels_by_caption(tmp_path / "without")
    assert output.figures["account"]["downloaded"] == len(GOOD)
    rows = parquet.read_table(tmp_path / "with" / "out" / "00000.parquet").to_pylist()
    causes = {row["caption"]: row["error_message"] for row in rows if row["status"] != "success"}
    assert causes == dict(zip(hostile, HOSTILE.values(), strict=True))


def test_a_shard_that_decodes_too_long_is_kept_and_the_rest_may_be_asked_for_again(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        StageFailed,
        match=r"6 × the shard's time was over .*download\.shard_deadline_s.*retry-failed",
    ):
        fetch(tmp_path, GOOD, shard_deadline_s=0.001)


@pytest.mark.parametrize("at_start", [True, False])
def test_a_machine_that_cannot_decode_loses_no_row_by_it(
    at_start: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = list[memoryview]()

    class NoDecoder:
        def __init__(self, *_: object) -> None: ...

        def start(self) -> None:
            if at_start:
                raise Shortage("no processes are left")

        def __call__(self, body: memoryview) -> None:
            bodies.append(body)
            raise Shortage("no processes are left")

    monkeypatch.setattr(shard_downloader, "Isolated", NoDecoder)
    with pytest.raises(StageFailed, match=r"no processes are left.*Finished shards are kept"):
        fetch(tmp_path, GOOD)
    assert not list((tmp_path / "out").glob("*_stats.json"))
    assert at_start is not bool(bodies)
    for body in bodies:  # a view would keep its file from being closed
        with pytest.raises(ValueError, match="released memoryview"):
            body.tobytes()


def with_a_bad_image(folder: Path, replaced: bytes) -> Manifest:
    """Shards of which the second pair's picture was something else from the start."""
    images = make_images(folder, sizes=(5, 3))
    tar = folder / "00000.tar"
    content = tar.read_bytes()
    start = content.index(b"\x89PNG", content.index(b"\x89PNG") + 1)
    tar.write_bytes(content[:start] + replaced + content[start + len(replaced) :])
    first = Shard(name="00000", rows=5, digest=file_digest(tar), files=file_records([tar]))
    manifest = images_manifest(folder, [first, *images.shards[1:]])
    return manifest.model_copy(update={"settings": {"image_size": 64}})


def encode_all(images: Manifest, out: Path, map_shards: MapShards) -> Output:
    out.mkdir()
    config = EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu")
    return encode(images, config, out, RememberingTracker(), map_shards)


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "not an image any more"),
        (
            encoded(photo(1, (8, 9)), "JPEG", quality=1)[:200],
            "image of another size than its shard's",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image any more"),
    ],
)
def test_what_cannot_be_decoded_is_left_out_of_the_encodings(
    tmp_path: Path, replaced: bytes, reason: str
) -> None:
    output = encode_all(with_a_bad_image(tmp_path / "images", replaced), tmp_path / "out", map_here)
    assert output.figures["account"]["dropped"] == {reason: 1}
    (row,) = read_dropped(tmp_path / "out", "00000")
    assert (row["key"], row["url"], row["reason"]) == ("0000001", "http://x/1", reason)
    assert not list((tmp_path / "out").glob(".*"))


def dies_of_damage(content: bytes, edge: int | None = None) -> NDArray[np.uint8] | str:
    image = DECODE(content, edge)
    if isinstance(image, str):
        os.kill(os.getpid(), signal.SIGSEGV)
    return image


DECODE = packed_images.decode


def fragile(make_worker: Callable[[], Callable[[str], Shard]]) -> Callable[[str], Shard]:
    packed_images.decode = dies_of_damage
    return make_worker()


@pytest.mark.slow
def test_what_ends_the_worker_of_encode_is_found_and_left_out(tmp_path: Path) -> None:
    def map_shards(
        make_worker: Callable[[], Any],
        items: Iterable[Any],
        workers: int,
        deadline_s: float | None = None,
    ) -> Any:
        return map_in_pool(partial(fragile, make_worker), items, workers, deadline_s)

    images = with_a_bad_image(tmp_path / "images", b"\x89PNG\r\n\x1a\n" + bytes(8))
    encode_all(images, tmp_path / "out", map_shards)
    encode_all(images, tmp_path / "calm", map_here)
    for name in ("00000.npz", "00000.parquet", "00001.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert list(read_dropped(tmp_path / "out", "00000")) == list(
        read_dropped(tmp_path / "calm", "00000")
    )
