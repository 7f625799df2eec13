"""Tests of the VAEs that ship with the project: what is left of images that they have never seen,
after encoding, uint8 and decoding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_catalog.shapes.dataset import drawings
from tests.support.emoji import needs_emoji, read_emoji
from tld_model.encoders.names import SHIPPED_ENCODERS
from tld_model.encoders.vae import load_image_codec
from tld_model.quantize import Quantization, dequantize, quantize


def psnr_after(vae: str, images: list[NDArray[np.uint8]], clip: float) -> float:
    """The PSNR of images [64, 64, 3] after the round trip, over all of them, in dB."""
    codec = load_image_codec(vae, "cpu")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    by = Quantization(clip)
    decoded = codec.decode(dequantize(quantize(codec.encode(pixels), by), by))
    return -10 * math.log10(((decoded.double() - pixels.double()) / 255).square().mean().item())


@needs_emoji
def test_emoji_that_were_held_out_survive_the_emoji_vae() -> None:
    images = [emoji.pixels for emoji in read_emoji() if emoji.held_out]
    assert len(images) == 241
    assert psnr_after("emoji-vae", images, clip=8) > 30


@pytest.mark.parametrize(("vae", "clip", "least"), [("shapes-vae", 7, 35), ("emoji-vae", 8, 32)])
def test_held_out_shapes_survive(vae: str, clip: float, least: float) -> None:
    images = [drawing.pixels() for drawing in drawings(64, held_out=True, seed=5)]
    assert psnr_after(vae, images, clip) > least


@pytest.mark.parametrize("name", SHIPPED_ENCODERS)
def test_what_ships_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in SHIPPED_ENCODERS[name].iterdir()) < 8_000_000
