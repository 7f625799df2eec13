"""Tests of the VAEs that ship with the project: what is left of images that they have never seen,
after encoding, uint8 and decoding."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data_catalog.shapes.dataset import drawings
from tld_model.encoders.names import SHIPPED_ENCODERS
from tld_model.encoders.vae import load_image_codec
from tld_model.quantize import Quantization, dequantize, quantize

EMOJI = Path(__file__).parents[4] / "shared/emoji"
_STYLES_OF_64_PIXELS = ("Google Noto", "Twitter")


def psnr_after(vae: str, images: list[NDArray[np.uint8]], clip: float) -> float:
    """The PSNR of images [64, 64, 3] after the round trip, over all of them, in dB."""
    codec = load_image_codec(vae, "cpu")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    by = Quantization(clip)
    decoded = codec.decode(dequantize(quantize(codec.encode(pixels), by), by))
    return -10 * math.log10(((decoded.double() - pixels.double()) / 255).square().mean().item())


def held_out_emoji() -> Iterator[NDArray[np.uint8]]:
    for path in sorted(EMOJI.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in (m for m in tar.getmembers() if m.name.endswith(".json")):
                facts = json.load(tar.extractfile(member) or io.BytesIO())
                if facts["split"] == "held_out" and facts["style"] in _STYLES_OF_64_PIXELS:
                    content = tar.extractfile(member.name.replace(".json", ".png"))
                    assert content
                    drawing = Image.open(content).convert("RGBA")
                    white = Image.new("RGBA", drawing.size, "white")
                    yield np.asarray(Image.alpha_composite(white, drawing).convert("RGB"))


@pytest.mark.skipif(not EMOJI.is_dir(), reason="no emoji at ../shared/emoji")
def test_emoji_that_were_held_out_survive_the_emoji_vae() -> None:
    images = list(held_out_emoji())
    assert len(images) == 241
    assert psnr_after("emoji-vae", images, clip=8) > 30


@pytest.mark.parametrize(("vae", "clip", "least"), [("shapes-vae", 7, 35), ("emoji-vae", 8, 32)])
def test_held_out_shapes_survive(vae: str, clip: float, least: float) -> None:
    images = [drawing.pixels() for drawing in drawings(64, held_out=True, seed=5)]
    assert psnr_after(vae, images, clip) > least


@pytest.mark.parametrize("name", SHIPPED_ENCODERS)
def test_what_ships_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in SHIPPED_ENCODERS[name].iterdir()) < 8_000_000
