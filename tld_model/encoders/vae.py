"""The VAE: raw pixels => raw latents => scaled latents, and back. No other file imports diffusers.

b batch   c latent channels   h, w pixels   z latent size   p side of a patch
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from tld_model.encoders.pretrained import EncoderError, load_model, weights_dtype
from tld_model.encoders.vae_config import VaeConfig, class_problem
from tld_model.latent_scaling import (
    ByChannel,
    patchify,
    scale_latents,
    unpatchify,
    unscale_latents,
)

diffusers_logging.set_verbosity_error()

# The VAE's largest activations have 128 channels at full resolution: 64 images of 256 x 256 take a
# few GB.
_PIXELS_AT_ONCE = 64 * 256 * 256


@dataclass(frozen=True, slots=True)
class Posterior:
    """The distribution of scaled latents, float32 [b, c, z, z]: independent normal numbers."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, slots=True)
class ImageCodec:
    """A VAE that converts between raw pixels, uint8 [b, 3, h, w], and scaled latents, float32
    [b, c, z, z] with z = h / downscale.

    Raw latents are what the VAE makes, with patches of p x p values as channels. Scaled latents are
    (raw latents - shift) * scaling_factor. Their standard deviation is about 1.
    """

    vae: Any  # of a class in VAE_CLASSES
    scaling_factor: ByChannel
    shift: ByChannel
    latent_channels: int
    downscale: int
    patch: int = 1
    has_posterior: bool = True
    """Whether latents have a distribution to sample from."""

    @torch.inference_mode()
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pixels -> scaled latents from the posterior: its mean, or with standard normal noise
        [b, c, z, z] a sample: mean + std * noise."""
        at_once = _images_at_once(*pixels.shape[2:])
        parts = noise.split(at_once) if noise is not None else [None] * -(-len(pixels) // at_once)
        return torch.cat(
            [self._encode(*part) for part in zip(pixels.split(at_once), parts, strict=True)]
        )

    def _encode(self, pixels: Tensor, noise: Tensor | None) -> Tensor:
        mean, std = self._raw(pixels)
        raw = mean if noise is None or std is None else mean + std * noise.to(mean.device)
        return scale_latents(raw, self.scaling_factor, self.shift)

    @torch.inference_mode()
    def encode_posterior(self, pixels: Tensor) -> Posterior:
        """Pixels -> mean and standard deviation of scaled latents. The VAE must have a
        posterior."""
        means, deviations = [], []
        for part in pixels.split(_images_at_once(*pixels.shape[2:])):
            mean, std = self._raw(part)
            assert std is not None, "without a posterior there is none"
            means.append(scale_latents(mean, self.scaling_factor, self.shift))
            deviations.append(scale_latents(std, self.scaling_factor, 0.0))
        return Posterior(torch.cat(means), torch.cat(deviations).abs())

    def _raw(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and, with a posterior, standard deviation of raw latents."""
        signed = pixels.to(self.vae.device).to(self.vae.dtype) / 127.5 - 1
        encoded = self.vae.encode(signed)
        if not self.has_posterior:
            return self._patchified(encoded[0]), None
        posterior = encoded.latent_dist
        return self._patchified(posterior.mean), self._patchified(posterior.std)

    def _patchified(self, latents: Tensor) -> Tensor:
        """[b, c/p², z p, z p] -> float32 [b, c, z, z]"""
        return patchify(latents.float(), self.patch)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [b, c, z, z] -> raw pixels, uint8 [b, 3, h, w]."""
        at_once = _images_at_once(*(side * self.downscale for side in latents.shape[2:]))
        return torch.cat([self._decode(part) for part in latents.split(at_once)])

    def _decode(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.vae.device).float()
        raw = unpatchify(unscale_latents(scaled, self.scaling_factor, self.shift), self.patch)
        signed = self.vae.decode(raw.to(self.vae.dtype)).sample.float()
        pixels: Tensor = ((signed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels


def load_image_codec(
    name_or_path: str, device: str, *, safetensors_only: bool = False
) -> ImageCodec:
    """Load a VAE by the class that its config names, one of VAE_CLASSES. Raises EncoderError if it
    cannot be loaded, or with `safetensors_only` if the weights are in another format."""

    def load(source: str | Path, **options: Any) -> Any:
        class_name = diffusers.AutoencoderKL.load_config(source, **options).get("_class_name")
        if problem := class_problem(name_or_path, class_name):
            raise EncoderError(problem)
        return getattr(diffusers, class_name).from_pretrained(
            source, use_safetensors=safetensors_only or None, output_loading_info=True, **options
        )

    vae = load_model("VAE", name_or_path, load)
    config = VaeConfig(**{**vae.config, "_class_name": type(vae).__name__})
    assert config.channels, "diffusers fills in what a config does not say"
    assert config.downscale, "as above"
    scaling_factor, shift = _scaling(vae)
    dtype = weights_dtype(device) if config.allows_half_precision else torch.float32
    return ImageCodec(
        vae=vae.to(device, dtype).eval(),
        scaling_factor=scaling_factor,
        shift=shift,
        latent_channels=config.channels,
        downscale=config.downscale,
        patch=config.patch,
        has_posterior=config.has_posterior,
    )


def _scaling(vae: Any) -> tuple[ByChannel, ByChannel]:
    """Scaling factor and shift: those of the config, or of FLUX.2's autoencoder the statistics of
    its batch norm, as `Flux2Pipeline._encode_vae_image` of diffusers takes them."""
    if isinstance(vae, diffusers.AutoencoderKLFlux2):
        std = (vae.bn.running_var.double() + vae.config["batch_norm_eps"]).sqrt()
        return tuple((1 / std).tolist()), tuple(vae.bn.running_mean.tolist())
    return float(vae.config["scaling_factor"]), float(vae.config.get("shift_factor") or 0.0)


def _images_at_once(height: int, width: int) -> int:
    """The number of images that go through the VAE at once: few if they are large, so that any
    batch fits into the device's memory."""
    return max(1, _PIXELS_AT_ONCE // (height * width))
