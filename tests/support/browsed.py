"""A small run to look through: a folder of pictures with odd captions, downloaded and encoded."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

from data_catalog.encodings import read_rows
from data_catalog.storage.manifest import Manifest
from flows.data_page.server import browsed_run
from pipeline.browse.browser import DataBrowser
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.run import RunConfig
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.images import encoded, photo
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker

SCRIPT = "a <script>document.title='taken'</script> tag"
CLOSING = "</script><img src=x onerror=\"document.title='taken'\"> & 'quotes'"
RTL = "\u202egnitirw \u0634\u0645\u0633 of the sun"
PAIRS, REJECTED, FAILED = 14, 1, 2  # pictures with a caption, of which two repeat others
# File, caption, other caption, split.
ROWS = [
    ("a/0.jpg", "a red boat", "un bateau rouge", "train"),
    ("a/1.jpg", "a Blue house", "", "held_out"),
    ("a/2.jpg", SCRIPT, "", ""),
    ("a/3.jpg", CLOSING, "", ""),
    ("a/4.jpg", RTL, "", ""),
    *((f"a/{n}.jpg", f"picture number {n}", f"the other caption {n}", "") for n in range(5, 12)),
    ("b/copy.jpg", "a copy of the boat", "", ""),
    ("b/smaller.jpg", "a smaller house", "", ""),
    ("b/broken.jpg", "no picture at all", "", ""),
    ("b/tiny.png", "a tiny picture", "", ""),
    ("b/wordless.jpg", "", "", ""),
]


def browsed_config(folder: Path, **encode_settings: Any) -> RunConfig:
    """The run of such a folder, whose pictures are written if they are not there."""
    if not (folder / "pictures").exists():
        _write_pictures(folder / "pictures")
    return RunConfig(
        name="look",
        root=str(folder / "data"),
        download=DownloadConfig(
            images=str(folder / "pictures"),
            more_caption_columns=("other",),
            split_column="split",
            image_size=64,
            image_format="png",
            shard_size=6,
            min_image_size=14,
        ),
        encode=EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu", **encode_settings),
    )


def _write_pictures(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        width = 150 + 10 * number
        (folder / f"a/{number}.jpg").write_bytes(
            encoded(photo(number, (width, 100 + number)), "JPEG")
        )
    (folder / "b/copy.jpg").write_bytes((folder / "a/0.jpg").read_bytes())
    smaller = photo(1, (160, 101)).resize((144, 91))
    (folder / "b/smaller.jpg").write_bytes(encoded(smaller, "JPEG", quality=80))
    (folder / "b/broken.jpg").write_bytes(b"this is no picture")
    (folder / "b/tiny.png").write_bytes(encoded(photo(20, (10, 8)), "PNG"))
    (folder / "b/wordless.jpg").write_bytes(encoded(photo(21), "JPEG"))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "caption", "other", "split"), *ROWS])


def download_browsed(config: RunConfig) -> Manifest:
    """Download, as far as it is not fresh."""
    track = RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, map_here),
    )


def encode_browsed(config: RunConfig) -> Manifest:
    """Download and encode, as far as they are not fresh."""
    images, track = download_browsed(config), RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        partial(encode, images, config.encode, track=track, map_shards=map_here),
    )


def finished_browsed(folder: Path) -> RunConfig:
    """A run of both stages, whose encoding leaves out the pair of the lowest CLIP score."""
    encodings = encode_browsed(browsed_config(folder))
    scores = sorted(
        score
        for shard in encodings.shards
        for score in read_rows(encodings.folder, shard.name)["clip_score"].to_pylist()
    )
    config = browsed_config(folder, min_clip_score=sum(scores[:2]) / 2)
    encode_browsed(config)
    return config


def open_browser(config: RunConfig) -> DataBrowser:
    """Its browser, with all rows read."""
    browser = DataBrowser(browsed_run(config, "look.yaml"))
    browser.read_input()
    return browser
