"""The VAE: raw pixels => raw latents => scaled latents, and back. No other file imports diffusers.

b batch   c latent channels   h, w pixels   z latent size
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from tld_model.encoders.pretrained import EncoderError, load_model, weights_dtype

diffusers_logging.set_verbosity_error()

# The VAE's largest activations have 128 channels at full resolution: 64 images of 256 x 256 take a
# few GB.
_PIXELS_AT_ONCE = 64 * 256 * 256


@dataclass(frozen=True, slots=True)
class ImageCodec:
    """A VAE that converts between raw pixels, uint8 [b, 3, h, w], and scaled latents, float32
    [b, c, h/8, w/8].

    Scaled latents are (raw latents - shift) * scaling_factor. Their standard deviation is about 1.
    """

    vae: Any  # AutoencoderKL or AutoencoderTiny
    scaling_factor: float
    shift: float
    latent_channels: int
    downscale: int

    @property
    def has_posterior(self) -> bool:
        """Whether latents have a distribution to sample from; those of AutoencoderTiny have not."""
        return not isinstance(self.vae, AutoencoderTiny)

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
        signed = pixels.to(self.vae.device).to(self.vae.dtype) / 127.5 - 1
        encoded = self.vae.encode(signed)
        raw = (encoded.latent_dist.mean if self.has_posterior else encoded.latents).float()
        if noise is not None:
            raw = raw + encoded.latent_dist.std.float() * noise.to(raw.device)
        scaled: Tensor = (raw - self.shift) * self.scaling_factor
        return scaled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [b, c, z, z] -> raw pixels, uint8 [b, 3, h, w]."""
        at_once = _images_at_once(*(side * self.downscale for side in latents.shape[2:]))
        return torch.cat([self._decode(part) for part in latents.split(at_once)])

    def _decode(self, latents: Tensor) -> Tensor:
        raw = latents.to(self.vae.device).float() / self.scaling_factor + self.shift
        signed = self.vae.decode(raw.to(self.vae.dtype)).sample.float()
        pixels: Tensor = ((signed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels


def load_image_codec(
    name_or_path: str, device: str, *, safetensors_only: bool = False
) -> ImageCodec:
    """Load an AutoencoderKL or AutoencoderTiny, as its config says. Raises EncoderError if it
    cannot be loaded, or with `safetensors_only` if the weights are in another format."""

    def load(source: str | Path, **options: Any) -> Any:
        kind = AutoencoderKL.load_config(source, **options).get("_class_name")
        classes = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
        if kind not in classes:
            raise EncoderError(
                f"VAE {name_or_path!r} is a {kind}; supported are {' and '.join(classes)}"
            )
        kinds = safetensors_only or None
        return classes[kind].from_pretrained(
            source, use_safetensors=kinds, output_loading_info=True, **options
        )

    vae = load_model("VAE", name_or_path, load)
    # A VAE with force_upcast overflows in half precision.
    dtype = torch.float32 if vae.config.get("force_upcast") else weights_dtype(device)
    vae = vae.to(device, dtype).eval()
    levels = len(vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"])
    return ImageCodec(
        vae=vae,
        scaling_factor=float(vae.config["scaling_factor"]),
        shift=float(vae.config.get("shift_factor") or 0.0),
        latent_channels=int(vae.config["latent_channels"]),
        downscale=2 ** (levels - 1),
    )


def _images_at_once(height: int, width: int) -> int:
    """The number of images that go through the VAE at once: few if they are large, so that any
    batch fits into the device's memory."""
    return max(1, _PIXELS_AT_ONCE // (height * width))
