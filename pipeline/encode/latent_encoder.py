"""The image side of the encode stage: pixels -> stored latents and what is measured of them.

b images   c channels   z latent size   h, w pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_catalog.latent_figures import CodecFigures
from pipeline.config.encode import EncodeConfig
from pipeline.encode.latent_statistics import measure
from pipeline.encode.posterior_noise import noise_of
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.quantize import Quantization, quantize
from tld_model.quantize_spread import quantize_spread


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """The latents of a batch, on the device of the VAE."""

    stored: Tensor  # uint8 or float16 [b, c, z, z]
    more: dict[str, Tensor]  # further arrays: name in EncodedArrays -> [b, c, z, z]
    measured: dict[str, Tensor]  # name -> [b, ...]


@dataclass(frozen=True, slots=True)
class LatentEncoder:
    """The VAE, and how its latents are stored."""

    codec: ImageCodec
    config: EncodeConfig

    def __call__(self, pixels: Tensor, keys: Sequence[str]) -> EncodedImages:
        """Encode images, uint8 [b, 3, h, w]. The results stay on the device, because reading one
        waits for it."""
        quantization = quantization_of(self.config)
        noise = self._noise(pixels, keys) if self.config.posterior == "sample" else None
        latents, further = self._encode(pixels, noise, "latents")
        if self.config.flips:
            mirrored = None if noise is None else noise.flip(3)
            flipped, more = self._encode(pixels.flip(3), mirrored, "flipped")
            further |= {"flipped": flipped, **more}
        stored = quantize(latents, quantization)
        measured = measure(latents, stored, quantization)
        for numbers in further.values():  # a pair counts as finite if all of them are
            finite = numbers.isfinite().all(dim=(1, 2, 3))
            measured["squared_error"] = measured["squared_error"].where(finite, torch.nan)
        more = {
            name: quantize_spread(numbers)
            if name.endswith("_spread")
            else quantize(numbers, quantization)
            for name, numbers in further.items()
        }
        return EncodedImages(stored, more, measured)

    def _encode(
        self, pixels: Tensor, noise: Tensor | None, name: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scaled latents [b, c, z, z], and their standard deviations as NAME_spread with
        encode.posterior=spread."""
        if self.config.posterior != "spread":
            return self.codec.encode(pixels, noise), {}
        posterior = self.codec.encode_posterior(pixels)
        return posterior.mean, {f"{name}_spread": posterior.std}

    def _noise(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """The noise of samples from the posterior: [b, c, z, z]."""
        height, width = (side // self.codec.downscale for side in pixels.shape[2:])
        return noise_of(keys, (self.codec.latent_channels, height, width))

    @property
    def codec_figures(self) -> CodecFigures:
        """What is recorded of the VAE."""
        return CodecFigures(
            scaling_factor=self.codec.scaling_factor,
            shift=self.codec.shift,
            latent_channels=self.codec.latent_channels,
            downscale=self.codec.downscale,
            patch=self.codec.patch if self.codec.patch > 1 else None,
        )


def latent_encoder(config: EncodeConfig, device: str) -> LatentEncoder:
    """Load the VAE of these settings. Raises EncoderError if it does not fit them."""
    codec = load_image_codec(config.vae, device)
    if config.posterior != "mean" and not codec.has_posterior:
        raise EncoderError(
            f"VAE {config.vae!r} has no posterior to sample from; set encode.posterior=mean"
        )
    clip, channels = config.latent_clip, codec.latent_channels
    if isinstance(clip, tuple) and len(clip) != channels:
        raise EncoderError(
            f"VAE {config.vae!r} makes {channels} channels, but encode.latent_clip is a list of "
            f"{len(clip)}; give one number, or one for each channel"
        )
    return LatentEncoder(codec, config)


def quantization_of(config: EncodeConfig) -> Quantization:
    """The quantization of latents in these settings."""
    return Quantization(config.latent_clip, config.latent_dtype)
