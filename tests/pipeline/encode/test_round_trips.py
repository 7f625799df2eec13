"""Which images make the round trip, that it goes through what is stored, and its PSNR."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_catalog.encodings import read_arrays
from data_catalog.figures import EncodedShardFigures
from data_catalog.storage.receipts import Shard
from pipeline.config.encode import EncodeConfig
from pipeline.encode.round_trips import psnr, round_trips_by_shard
from pipeline.encode.shard_encoder import ShardEncoder
from tests.support.image_shards import make_images, read_image_pairs
from tests.support.vaes import VAES, save_vae
from tld_model.encoders.vae import load_image_codec


def shards(*rows: int) -> list[Shard]:
    return [
        Shard(name=f"{number:05d}", rows=count, digest="", files={})
        for number, count in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((), {}),
        ((0, 0), {}),
        ((3,), {"00000": 3}),
        ((100,), {"00000": 8}),
        ((75, 0, 25), {"00000": 6, "00002": 2}),
        ((10,) * 16, {f"{number:05d}": 1 for number in range(1, 16, 2)}),
    ],
)
def test_round_trips_are_spread_evenly_over_the_rows(
    rows: tuple[int, ...], expected: dict[str, int]
) -> None:
    assert round_trips_by_shard(shards(*rows)) == expected


def test_psnr_is_that_of_the_textbook_and_finite() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black, black + 255) == pytest.approx(0)
    assert psnr(black, black + 16) == pytest.approx(20 * math.log10(255 / 16))


@pytest.mark.parametrize("name", ["shapes-vae", *VAES])
def test_what_is_shown_is_decoded_from_what_is_stored(name: str, tmp_path: Path) -> None:
    """With a coarse quantization, which shows."""
    vae = save_vae(name, tmp_path / "vae") if name in VAES else name
    images = make_images(tmp_path / "images", (12,))
    settings: dict[str, Any] = {"vae": vae, "clip": "shapes-clip", "device": "cpu"}
    config = EncodeConfig(**settings, latent_clip=60.0)
    encode = ShardEncoder(images.folder, config, tmp_path, round_trips={"00000": 3})
    receipt = encode("00000")
    round_trips = EncodedShardFigures.of(receipt).round_trips
    assert round_trips
    assert [made.key for made in round_trips] == ["0000002", "0000006", "0000010"]
    assert "00000.round_trips.png" in receipt.files
    stored = torch.from_numpy(read_arrays(tmp_path / "00000.npz").latents[[2, 6, 10]])
    decoded = load_image_codec(vae, "cpu").decode((stored.float() - 128) * 60 / 127)
    pairs = list(read_image_pairs(images.folder / "00000.tar"))
    with Image.open(tmp_path / "00000.round_trips.png") as image:
        pixels = np.asarray(image).reshape(3, 64, 2, 64, 3)
    for i, number in enumerate((2, 6, 10)):
        assert round_trips[i].caption == pairs[number].caption
        assert np.array_equal(pixels[i, :, 0], pairs[number].image)
        there = decoded[i].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(pixels[i, :, 1].astype(int) - there).max() <= 1
        assert round_trips[i].psnr == pytest.approx(
            psnr(pairs[number].image, pixels[i, :, 1]), abs=1e-6
        )


def test_a_shard_that_lost_all_its_pairs_has_none(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", (3,))
    config = EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu", min_clip_score=100)
    receipt = ShardEncoder(images.folder, config, tmp_path, round_trips={"00000": 3})("00000")
    assert EncodedShardFigures.of(receipt).round_trips is None
    assert not (tmp_path / "00000.round_trips.png").exists()


def test_of_large_images_the_centre_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.encode.round_trips._LARGEST_SHOWN", 24)
    images = make_images(tmp_path / "images", (1,))
    config = EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu")
    ShardEncoder(images.folder, config, tmp_path, round_trips={"00000": 1})("00000")
    (pair,) = read_image_pairs(images.folder / "00000.tar")
    with Image.open(tmp_path / "00000.round_trips.png") as image:
        assert image.size == (48, 24)
        assert np.array_equal(np.asarray(image)[:, :24], pair.image[20:44, 20:44])
