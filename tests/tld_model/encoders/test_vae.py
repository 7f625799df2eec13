"""VAEs of each class: shapes, the scaling that diffusers' own pipelines apply, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2Pipeline
from torch import Tensor

from tests.support.vaes import SHAPES, VAES, save_vae
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.quantize import Quantization, dequantize, quantize


@pytest.fixture(params=VAES)
def class_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(class_name: str, tmp_path: Path) -> ImageCodec:
    return load_image_codec(save_vae(class_name, tmp_path / "vae"), "cpu")


def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, 32, 64), generator=generator).to(torch.uint8)


def signed() -> Tensor:
    return pixels().float() / 127.5 - 1


def scaled_by_kl(vae: Any) -> Any:
    """As in FluxImg2ImgPipeline._encode_vae_image"""
    latents = vae.encode(signed()).latent_dist.mode()
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def scaled_by_tiny(vae: Any) -> Any:
    """As in StableDiffusionImg2ImgPipeline, whose `retrieve_latents` takes `latents`"""
    return vae.config.scaling_factor * vae.encode(signed()).latents


def scaled_by_dc(vae: Any) -> Any:
    """The inverse of SanaPipeline.__call__, which decodes latents / scaling_factor"""
    return vae.encode(signed()).latent * vae.config.scaling_factor


def scaled_by_flux2(vae: Any) -> Any:
    """As in Flux2Pipeline._encode_vae_image"""
    latents = Flux2Pipeline._patchify_latents(vae.encode(signed()).latent_dist.mode())
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return (latents - mean) / std


SCALED: dict[str, Callable[[Any], Any]] = {
    "AutoencoderKL": scaled_by_kl,
    "AutoencoderTiny": scaled_by_tiny,
    "AutoencoderDC": scaled_by_dc,
    "AutoencoderKLFlux2": scaled_by_flux2,
}


def test_latents_are_those_of_the_pipelines_of_diffusers(
    codec: ImageCodec, class_name: str
) -> None:
    latents = codec.encode(pixels())
    downscale, channels = SHAPES[class_name]
    assert (codec.downscale, codec.latent_channels) == (downscale, channels)
    assert latents.shape == (3, channels, 32 // downscale, 64 // downscale)
    assert type(codec.vae).__name__ == class_name
    with torch.no_grad():
        torch.testing.assert_close(latents, SCALED[class_name](codec.vae), rtol=1e-4, atol=1e-5)


def decoded_by_flux2(vae: Any, latents: Tensor) -> Any:
    """As at the end of Flux2Pipeline.__call__"""
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    raw = Flux2Pipeline._unpatchify_latents(latents * std + mean)
    return vae.decode(raw, return_dict=False)[0]


def test_latents_are_decoded_as_by_the_pipelines_of_diffusers(
    codec: ImageCodec, class_name: str
) -> None:
    latents = codec.encode(pixels())
    vae = codec.vae
    with torch.no_grad():
        if class_name == "AutoencoderKLFlux2":
            theirs = decoded_by_flux2(vae, latents)
        else:
            shift = vae.config.get("shift_factor", 0)
            theirs = vae.decode(latents / vae.config.scaling_factor + shift).sample
    expected = ((theirs + 1) * 127.5).clamp(0, 255)
    images = codec.decode(latents)
    assert images.shape == (3, 3, 32, 64)
    assert (images.float() - expected).abs().max() <= 0.51


def test_stored_latents_come_back_within_half_a_level(codec: ImageCodec) -> None:
    latents = codec.encode(pixels())
    quantization = Quantization(float(latents.abs().max()))
    back = dequantize(quantize(latents, quantization), quantization)
    assert (back - latents).abs().max().item() <= quantization.bound * 1.001


def sampled_by_kl(vae: Any, noise: Tensor) -> Any:
    """As in FluxImg2ImgPipeline._encode_vae_image, of a sample"""
    posterior = vae.encode(signed()).latent_dist
    latents = posterior.mean + posterior.std * noise
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def sampled_by_flux2(vae: Any, noise: Tensor) -> Any:
    """As in Flux2Pipeline._encode_vae_image, of a sample; noise of patches"""
    posterior = vae.encode(signed()).latent_dist
    patches = Flux2Pipeline._patchify_latents(posterior.mean)
    deviations = Flux2Pipeline._patchify_latents(posterior.std)
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return (patches + deviations * noise - mean) / std


SAMPLED: dict[str, Callable[[Any, Tensor], Any]] = {
    "AutoencoderKL": sampled_by_kl,
    "AutoencoderKLFlux2": sampled_by_flux2,
}


@torch.no_grad()
def test_a_sample_is_the_mean_and_noise_times_the_deviation(
    codec: ImageCodec, class_name: str
) -> None:
    mean = codec.encode(pixels())
    if not codec.has_posterior:
        assert class_name in ("AutoencoderTiny", "AutoencoderDC")
        return
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    sample = codec.encode(pixels(), noise)
    scaled = SAMPLED[class_name](codec.vae, noise)
    torch.testing.assert_close(sample, scaled, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sample, mean)


def test_another_class_is_refused_with_the_list_of_those_that_work(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    save_vae("AutoencoderKL", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(
        EncoderError,
        match=r"is of the class AutoencoderKLWan; supported are AutoencoderKL, AutoencoderTiny, "
        r"AutoencoderDC and AutoencoderKLFlux2",
    ):
        load_image_codec(str(folder), "cpu")
