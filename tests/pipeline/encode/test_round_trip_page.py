"""The page of round trips: what it shows, when it warns, and that nothing else depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_catalog.storage.manifest import Manifest, write_manifest
from data_catalog.storage.receipts import Shard, receipt_path, write_receipt
from data_catalog.storage.shard_reuse import reuse_shard
from pipeline.config.encode import EncodeConfig
from pipeline.encode.round_trip_page import PAGE_FILE
from pipeline.encode.stage import encode
from pipeline.stages.contract import Output
from tests.support.image_shards import make_images
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tests.support.vaes import save_vae


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_images(tmp_path_factory.mktemp("images"))


def encode_into(
    out: Path, images: Manifest, track: RememberingTracker | None = None, **settings: Any
) -> Output:
    out.mkdir(parents=True, exist_ok=True)
    config = EncodeConfig(
        **{"vae": "shapes-vae", "clip": "shapes-clip", "device": "cpu", **settings}
    )
    return encode(images, config, out, track or RememberingTracker(), map_here, reuse_shard)


def test_the_page_shows_eight_images_and_a_good_vae_is_no_reason_to_warn(
    images: Manifest, tmp_path: Path
) -> None:
    track = RememberingTracker()
    output = encode_into(tmp_path / "out", images, track)
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert page.count("<figure>") == 8
    assert page.count("data:image/png") == 16
    assert f"/{PAGE_FILE}" in track.artifacts
    assert not track.warnings
    logged = {name: value for _, values in track.heard for name, value in values.items()}
    average, least = (output.figures[name] for name in ("round_trip_psnr", "round_trip_psnr_min"))
    assert (logged["round_trip_psnr"], logged["round_trip_psnr_min"]) == (average, least)
    assert 25 < least < average < 60
    assert f"{average:.1f} dB</b> on average" in page


def test_a_vae_that_spoils_the_images_is_reported(images: Manifest, tmp_path: Path) -> None:
    track = RememberingTracker()
    encode_into(tmp_path / "out", images, track, vae=save_vae("AutoencoderKL", tmp_path / "vae"))
    (warning,) = track.warnings
    assert "below 22 dB, and no training can mend that" in warning
    assert "train_autoencoder" in warning
    assert "no training can mend it" in (tmp_path / "out" / PAGE_FILE).read_text()


def test_a_run_that_resumes_or_starts_again_has_the_same_page(
    images: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = encode_into(out, images)
    page = (out / PAGE_FILE).read_bytes()
    receipt_path(out, "00001").unlink()
    (out / PAGE_FILE).unlink()
    assert encode_into(out, images) == first
    assert (out / PAGE_FILE).read_bytes() == page
    encode_into(out, images)
    assert (out / PAGE_FILE).read_bytes() == page


def test_another_output_takes_the_round_trips_with_the_shards(
    images: Manifest, tmp_path: Path
) -> None:
    encode_into(tmp_path / "root/first", images)
    encode_into(tmp_path / "root/second", images)
    pages = [(tmp_path / "root" / name / PAGE_FILE).read_bytes() for name in ("first", "second")]
    assert pages[0] == pages[1]
    file = "00000.round_trips.png"
    inodes = {(tmp_path / "root" / name / file).stat().st_ino for name in ("first", "second")}
    assert len(inodes) == 1


def test_images_may_be_evicted(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    write_manifest(images)
    encode_into(tmp_path / "out", images, keep_images=False)
    assert (tmp_path / "out" / PAGE_FILE).read_text().count("<figure>") == 8


def test_shards_of_earlier_versions_have_none_and_digests_do_not_depend_on_them(
    images: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    output = encode_into(out, images)
    for receipt in output.shards:
        file = f"{receipt.name}.round_trips.png"
        earlier: dict[str, Any] = {
            "files": {name: record for name, record in receipt.files.items() if name != file},
            "figures": {k: v for k, v in receipt.figures.items() if k != "round_trips"},
        }
        write_receipt(out, Shard.model_validate(receipt.model_copy(update=earlier).model_dump()))
        (out / file).unlink()
    (out / PAGE_FILE).unlink()
    again = encode_into(out, images)
    assert [shard.digest for shard in again.shards] == [shard.digest for shard in output.shards]
    assert "round_trip_psnr" not in again.figures
    assert not (out / PAGE_FILE).exists()
