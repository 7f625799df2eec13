"""Images through the VAE of each class to what is stored, and what is recorded of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data_catalog.latent_figures import CodecFigures
from pipeline.config.encode import EncodeConfig
from pipeline.encode.latent_encoder import latent_encoder
from tests.support.vaes import SHAPES, VAES, save_vae
from tld_model.encoders.pretrained import EncoderError


def config_with(**settings: Any) -> EncodeConfig:
    return EncodeConfig(**{"vae": "shapes-vae", "clip": "shapes-clip", **settings})


@pytest.mark.parametrize("class_name", VAES)
def test_each_vae_leaves_what_brings_its_latents_back(class_name: str, tmp_path: Path) -> None:
    name, (downscale, channels) = save_vae(class_name, tmp_path / "vae"), SHAPES[class_name]
    encode = latent_encoder(config_with(vae=name, latent_dtype="float16"), "cpu")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=generator).to(torch.uint8)
    stored = encode(pixels, ["a", "b"]).stored.float()
    assert stored.shape == (2, channels, 64 // downscale, 64 // downscale)
    codec = CodecFigures.model_validate_json(encode.codec_figures.model_dump_json())
    assert (codec.downscale, codec.latent_channels) == (downscale, channels)
    factor, shift = (
        torch.tensor(value).view(-1, 1, 1) for value in (codec.scaling_factor, codec.shift)
    )
    raw = torch.nn.functional.pixel_shuffle(stored / factor + shift, codec.patch or 1)
    with torch.no_grad():
        expected = ((encode.codec.vae.decode(raw).sample + 1) * 127.5).clamp(0, 255)
    assert (encode.codec.decode(stored).float() - expected).abs().max() <= 0.51


@pytest.mark.parametrize("class_name", ["AutoencoderTiny", "AutoencoderDC"])
def test_a_vae_without_posterior_has_no_samples(class_name: str, tmp_path: Path) -> None:
    vae = save_vae(class_name, tmp_path / "vae")
    with pytest.raises(EncoderError, match=r"no posterior .*encode\.posterior=mean"):
        latent_encoder(config_with(vae=vae, posterior="sample"), "cpu")


def test_a_list_of_ranges_must_have_one_for_each_channel() -> None:
    with pytest.raises(
        EncoderError, match=r"makes 4 channels, but encode\.latent_clip is a list of 2"
    ):
        latent_encoder(config_with(latent_clip=(1.0, 2.0)), "cpu")
