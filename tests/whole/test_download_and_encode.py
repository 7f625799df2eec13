"""Stages 1 and 2 on a real HTTP server, with real img2dataset, real (small) CLIP and VAE."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_catalog.images import ImagePair
from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from data_catalog.shapes.grader import grade
from data_catalog.storage.manifest import Manifest
from pipeline.compute.shard_map import map_in_pool
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.run import RunConfig
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support import images as web
from tests.support.image_shards import read_image_pairs
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tld_model.encoders.clip import load_clip
from tld_model.encoders.vae import load_image_codec
from tld_model.quantize import Quantization, dequantize, quantize


def config_for(root: Path, **download_settings: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "image_size": 64,
        "image_format": "png",
        "shard_size": 20,
        "threads": 8,
        "retries": 0,
        "near_duplicate_bits": None,
    }
    settings |= {
        "allowed_networks": ["127.0.0.0/8"],
        "min_image_size": 14,
        "host_requests_per_s": None,
    }
    return RunConfig(
        name="test",
        root=root,
        download=DownloadConfig(**{**settings, **download_settings}),
        encode=EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu"),
    )


def run_download(
    config: RunConfig, track: Any, force: bool = False, map_shards: Any = map_here
) -> Manifest:
    return run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, map_shards),
        force=force,
    )


def run_encode(config: RunConfig, images: Manifest, track: Any, force: bool = False) -> Manifest:
    return run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        lambda out: encode(images, config.encode, out, track, map_here),
        force=force,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, Manifest]]:
    folder = tmp_path_factory.mktemp("own")
    with web.serve_images() as (address, _):
        (folder / "urls.csv").write_text(web.table(address))
        config = config_for(folder / "data", urls=str(folder / "urls.csv"))
        yield config, run_download(config, RememberingTracker(), map_shards=map_in_pool)


@pytest.mark.slow
def test_every_row_is_accounted_for_by_cause(images: tuple[RunConfig, Manifest]) -> None:
    account = images[1].figures["account"]
    assert account["rejected"] == {
        "URL that stands in the table twice": 1,
        "empty caption": 1,
        "URL that is not http or https": 1,
    }
    assert account["failed"] == {
        "HTTP 404": 3,
        "not an image": 1,
        "truncated or damaged image": 1,
    }
    assert account["downloaded"] == images[1].rows == web.GOOD + 5
    lost = sum(account["rejected"].values()) + sum(account["failed"].values())
    assert account["rows"] == lost + account["downloaded"]


def test_pictures_are_square_upright_opaque_and_in_colour(
    images: tuple[RunConfig, Manifest],
) -> None:
    manifest = images[1]
    pairs: dict[str, ImagePair] = {}
    for shard in manifest.shards:
        pairs |= {
            pair.url.split("/", 3)[3]: pair
            for pair in read_image_pairs(manifest.file(f"{shard.name}.tar"))
        }
    assert {pair.image.shape for pair in pairs.values()} == {(64, 64, 3)}
    assert pairs["odd/transparent.png"].image.min() == 255, "transparency is white"
    turned = pairs["odd/turned.jpg"].image
    assert turned[5, 32, 0] > 200, "red is on top, as the camera meant it"
    assert turned[58, 32, 2] > 200
    cmyk, plain = pairs["odd/cmyk.jpg"].image.astype(int), pairs["good/2.jpg"].image.astype(int)
    assert np.abs(cmyk - plain).mean() < 12
    grey = pairs["odd/grey.jpg"].image
    assert (grey[..., 0] == grey[..., 2]).all()
    assert pairs["good/0.jpg"].caption == "ein schönes Bild – 写真 и картинка"
    assert pairs["good/1.jpg"].original_width == 150


def test_a_forced_download_gives_identical_bytes(
    images: tuple[RunConfig, Manifest], track: Any
) -> None:
    config, before = images
    tars = [before.file(f"{shard.name}.tar") for shard in before.shards]
    bytes_before = [tar.read_bytes() for tar in tars]
    after = run_download(config, track, force=True)
    assert after.digest == before.digest
    assert [tar.read_bytes() for tar in tars] == bytes_before


def test_too_few_successes_are_an_error_that_names_the_causes_and_keeps_the_rest(
    tmp_path: Path, track: Any
) -> None:
    with web.serve_images() as (address, asked):
        (tmp_path / "urls.csv").write_text(web.table(address))
        config = config_for(
            tmp_path / "data", urls=str(tmp_path / "urls.csv"), min_success_rate=0.95
        )
        with pytest.raises(
            StageFailed, match=r"only 45 of 50 usable rows became images \(90%\)"
        ) as told:
            run_download(config, track)
        assert "3 × HTTP 404" in str(told.value)
        assert stage_statuses(RunInputs(config))["download"].state == "interrupted"
        requests = len(asked)
        relaxed = config_for(
            tmp_path / "data", urls=str(tmp_path / "urls.csv"), min_success_rate=0.5
        )
        assert run_download(relaxed, track).rows == 45
        assert len(asked) == requests, "what was fetched is not fetched again"


def test_encodings_have_the_rows_of_the_images_and_decode_to_them(
    images: tuple[RunConfig, Manifest], track: Any
) -> None:
    config, manifest = images
    encodings = run_encode(config, manifest, track)
    figures = encodings.figures
    assert encodings.rows == manifest.rows
    assert figures["latent_shape"] == [4, 8, 8]
    assert figures["text_dim"] == 64
    assert figures["account"]["encoded"] == encodings.rows
    assert figures["quantization_rmse"] > 0
    if figures["clipped_fraction"] == 0:
        assert figures["quantization_rmse"] <= figures["quantization_bound"]

    again = run_encode(config, manifest, track, force=True)
    assert again.digest == encodings.digest


def test_encoding_resumes_at_the_first_missing_shard(
    images: tuple[RunConfig, Manifest], track: Any
) -> None:
    config, manifest = images
    encodings = run_encode(config, manifest, track)
    first, *others = encodings.shards
    untouched = {
        name: encodings.file(name).stat().st_mtime_ns for shard in others for name in shard.files
    }
    (encodings.folder / "manifest.json").unlink()
    (encodings.folder / f"{first.name}_stats.json").unlink()
    resumed = run_encode(config, manifest, track)
    assert resumed.digest == encodings.digest
    assert {name: encodings.file(name).stat().st_mtime_ns for name in untouched} == untouched


@pytest.mark.slow
def test_the_shipped_encoders_keep_every_attribute_through_quantization() -> None:
    codec = load_image_codec("shapes-vae", "cpu")
    drawings = list(shapes.drawings(300, held_out=True, seed=123))
    original = np.stack([drawing.pixels() for drawing in drawings])
    quantization = Quantization(EncodeConfig().latent_clip)
    levels = quantize(codec.encode(torch.from_numpy(original).permute(0, 3, 1, 2)), quantization)
    decoded = codec.decode(dequantize(levels, quantization)).permute(0, 2, 3, 1).numpy()

    psnr = -10 * np.log10(np.mean(((original.astype(float) - decoded) / 255) ** 2))
    assert psnr >= 30
    verdicts = [grade(p).agrees(d.attributes) for p, d in zip(decoded, drawings, strict=True)]
    for name in ATTRIBUTE_NAMES:
        assert np.mean([verdict[name] for verdict in verdicts]) >= 0.98, name


def test_the_shipped_clip_finds_the_caption_of_a_picture_among_100() -> None:
    clip = load_clip("shapes-clip", "cpu")
    drawings = list(shapes.drawings(100, held_out=True, seed=321))
    captions = [drawing.attributes.caption for drawing in drawings]
    assert len(set(captions)) == 100
    pixels = torch.from_numpy(np.stack([drawing.pixels() for drawing in drawings])).permute(
        0, 3, 1, 2
    )
    images, text = (
        F.normalize(x, dim=1) for x in (clip.encode_images(pixels), clip.encode_text(captions))
    )
    nearest = (images @ text.T).argmax(dim=1)
    assert (nearest == torch.arange(100)).float().mean() >= 0.95


def test_a_wrong_fingerprint_is_another_folder(tmp_path: Path, track: Any) -> None:
    config = config_for(tmp_path, urls="shapes", limit=20)
    images = run_download(config, track)
    other = config_for(tmp_path, urls="shapes", limit=21)
    assert stage_statuses(RunInputs(config))["download"].state == "fresh"
    assert stage_statuses(RunInputs(other))["download"].state == "stale"
    shutil.rmtree(images.folder)
    assert stage_statuses(RunInputs(config))["download"].state == "missing"
