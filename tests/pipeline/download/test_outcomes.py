"""What becomes of rows: asked again, dropped as duplicates, listed with their reason. On a real
HTTP server."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.excluded_rows import dropped_keys
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.shard_reuse import ReuseShard, reuse_nothing, reuse_shard
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.run import RunConfig
from pipeline.download.outcomes import retryable_rows
from pipeline.download.shard_downloader import ShardDownloader
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.maintenance.excluded_rows import dropped_rows
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.image_shards import read_image_pairs
from tests.support.images import encoded, photo
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker

IMAGES = 12
BUSY = (2, 7, 9)  # answer 503 until the server has recovered
GONE = (4, 11)


@dataclass
class Web:
    """A server whose pictures 2, 7 and 9 are out of order for now, 4 and 11 for good."""

    address: str = ""
    recovered: set[int] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)


@contextmanager
def serve() -> Iterator[Web]:
    web = Web()
    same = encoded(photo(0), "JPEG")
    bodies = {f"/{i}.jpg": encoded(photo(i), "JPEG") for i in range(IMAGES)}
    bodies |= {
        "/mirror/0.jpg": same,
        "/smaller/1.jpg": encoded(photo(1).resize((120, 80)), "JPEG", quality=80),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked[self.path] += 1
            number = int(re.findall(r"\d+", self.path)[0])
            if (
                self.path in bodies
                and number not in GONE
                and (number not in BUSY or number in web.recovered)
            ):
                self.send_response(200)
                self.send_header("Content-Length", str(len(bodies[self.path])))
                self.end_headers()
                self.wfile.write(bodies[self.path])
            else:
                self.send_error(503 if number in BUSY else 404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        web.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield web
        server.shutdown()


def config_for(folder: Path, web: Web, **settings: Any) -> RunConfig:
    paths = [f"/{i}.jpg" for i in range(IMAGES)] + ["/mirror/0.jpg", "/smaller/1.jpg"]
    rows = [f"{web.address}{path},picture {number}" for number, path in enumerate(paths)]
    (folder / "urls.csv").write_text("\n".join(["url,caption", *rows, "not a url,broken"]) + "\n")
    values = {
        "image_size": 64,
        "image_format": "png",
        "shard_size": 5,
        "threads": 4,
        "retries": 0,
        "min_image_size": 14,
    }
    values |= {
        "allowed_networks": ["127.0.0.0/8"],
        "host_requests_per_s": None,
        "urls": str(folder / "urls.csv"),
    }
    encode = EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu")
    return RunConfig(
        name="test",
        root=folder / "data",
        download=DownloadConfig(**{**values, **settings}),
        encode=encode,
    )


def run(config: RunConfig, retry_failed: bool = False) -> Manifest:
    track = RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, map_here, retry_failed=retry_failed),
        force="reopen" if retry_failed else False,
    )


def test_only_what_may_have_passed_is_asked_again_and_the_rest_is_kept(tmp_path: Path) -> None:
    with serve() as web:
        config = config_for(tmp_path, web, near_duplicate_bits=None, drop_duplicates=False)
        before = run(config)
        assert before.figures["account"]["failed"] == {"HTTP 503": 3, "HTTP 404": 2}
        assert before.figures["may_pass"] == 3
        files = {path.name: path.read_bytes() for path in before.folder.glob("*.tar")}

        web.asked.clear()
        web.recovered |= {2, 7}
        after = run(config, retry_failed=True)
        assert sorted(web.asked) == ["/2.jpg", "/7.jpg", "/9.jpg"], (
            "no success and no 404 is asked again"
        )
        assert after.figures["account"]["failed"] == {"HTTP 404": 2, "HTTP 503": 1}
        assert after.figures["account"]["downloaded"] == before.figures["account"]["downloaded"] + 2
        assert {name: (after.folder / name).read_bytes() for name in files} == files
        (new,) = after.shards[len(before.shards) :]
        assert [pair.caption for pair in read_image_pairs(after.file(f"{new.name}.tar"))] == [
            "picture 2",
            "picture 7",
        ]
        assert after.digest != before.digest

        web.asked.clear()
        web.recovered.add(9)
        last = run(config, retry_failed=True)
        assert sorted(web.asked) == ["/9.jpg"]
        assert last.figures["account"]["failed"] == {"HTTP 404": 2}
        assert last.figures["may_pass"] == 0
        assert stage_statuses(RunInputs(config))["download"].state == "fresh"
        (last.folder / "manifest.json").unlink()
        assert run(config).digest == last.digest, (
            "a run that was stopped behind a retry finds its shards again"
        )


def run_encode(config: RunConfig, images: Manifest, adopt: ReuseShard = reuse_shard) -> Manifest:
    track = RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        lambda out: encode(images, config.encode, out, track, map_here, adopt),
        force=adopt is reuse_nothing,
    )


def test_further_captions_are_asked_again_with_their_row(tmp_path: Path) -> None:
    rows = [
        {
            "row": row,
            "url": f"http://x/{row}",
            "caption": "main",
            "split": "",
            "more_captions": f'["{row}"]',
        }
        | {"status": "failed_to_download", "error_message": cause}
        for row, cause in enumerate(("HTTP 404", "HTTP 503"))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    (again,) = retryable_rows(tmp_path, ["00000"], 10)
    assert again.pairs.to_pylist() == [{name: rows[1][name] for name in again.pairs.column_names}]
    assert "more_captions" in again.pairs.column_names


def test_a_table_that_grew_costs_only_what_is_new(tmp_path: Path) -> None:
    with serve() as web:
        small, large = (
            config_for(tmp_path, web, limit=limit, near_duplicate_bits=None) for limit in (10, 14)
        )
        before = run(small)
        encoded_before = run_encode(small, before)
        web.asked.clear()
        after = run(large)
        assert sorted(web.asked) == ["/10.jpg", "/11.jpg", "/mirror/0.jpg", "/smaller/1.jpg"]
        assert [shard.digest for shard in after.shards[:2]] == [
            shard.digest for shard in before.shards
        ]
        encoded_after = run_encode(large, after)
        for name in ("00000.npz", "00001.parquet"):
            assert encoded_after.file(name).samefile(encoded_before.file(name)), (
                "linked, not made again"
            )
        assert encoded_after.file("00002.npz").exists()

        alone = RunConfig.model_validate({**large.model_dump(), "root": tmp_path / "alone"})
        web.asked.clear()
        assert run(alone).digest == after.digest, "the same as one that was made at once"
        assert run_encode(alone, run(alone)).digest == encoded_after.digest
        again = run_encode(large, after, reuse_nothing)
        assert again.digest == encoded_after.digest
        assert not again.file("00000.npz").samefile(encoded_before.file("00000.npz")), (
            "forced: made again"
        )


def test_duplicates_are_left_out_listed_and_counted(tmp_path: Path) -> None:
    with serve() as web:
        config = config_for(tmp_path, web)
        images = run(config)
        dropped = images.figures["account"]["dropped"]
        assert dropped == {
            "the same file as another URL's": 1,
            "looks the same as another picture": 1,
        }
        assert images.rows == images.figures["account"]["downloaded"] - 2
        last = images.shards[-1]
        candidates = [
            pair.key
            for pair in read_image_pairs(images.file(f"{last.name}.tar"))
            if "1" in pair.url
        ]
        assert dropped_keys(images.folder, last.name) <= set(candidates)
        everything = list(dropped_rows(config.download, stage_statuses(RunInputs(config))))
        account = images.figures["account"]
        lost = sum(sum(account[kind].values()) for kind in ("rejected", "failed", "dropped"))
        assert len(everything) == lost
        assert account["rows"] == lost + images.rows
        by_stage = Counter((row["stage"], row["reason"]) for row in everything)
        assert by_stage["table", "URL that is not http or https"] == 1
        assert by_stage["download", "HTTP 404"] == 2
        assert by_stage["download", "looks the same as another picture"] == 1

        undropped = run(config_for(tmp_path, web, near_duplicate_bits=None, drop_duplicates=False))
        assert undropped.rows == images.rows + 2
        assert undropped.digest != images.digest


def test_the_report_says_what_came_of_the_table(tmp_path: Path) -> None:
    with serve() as web:
        images = run(config_for(tmp_path, web))
    page = images.file("report.html").read_text()
    for expected in (
        "15 rows",
        "14 URLs requested",
        "HTTP 404",
        "127.0.0.1",
        "--retry-failed",
        "data:image/png;base64,",
    ):
        assert expected in page
    assert 'src="http' not in page


def test_a_shard_whose_files_do_not_agree_is_fetched_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ShardDownloader._run_img2dataset
    lies = 1

    def lying(self: ShardDownloader, shard: Any, scratch: Path) -> None:
        """img2dataset, and then a disk that loses the end of the tar."""
        nonlocal lies
        honest(self, shard, scratch)
        if lies:
            lies -= 1
            tar = scratch / f"{shard.name}.tar"
            tar.write_bytes(tar.read_bytes()[: 512 * 8])

    monkeypatch.setattr(ShardDownloader, "_run_img2dataset", lying)  # a disk that lies can't be had
    with serve() as web:
        config = config_for(tmp_path, web, limit=5)
        assert run(config).figures["account"]["downloaded"] == 3
        lies = 2
        with pytest.raises(
            StageFailed,
            match=r"the files of shard 00000 were damaged in two tries: unexpected end of data",
        ):
            run(config_for(tmp_path, web, limit=4))
