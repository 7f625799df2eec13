"""Captions -> pictures with a trained denoiser. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.devices import choose_device
from pipeline.pictures import Pictures
from tld_model.checkpoint import CheckpointError, check_encoders, load_denoiser, read_latent_scaling
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.encoders import ImageCodec, TextEncoder, load_image_codec, load_text_encoder
from tld_model.sampler import DenoiseFn, guided, noise_levels, sample
from tld_model.sampling import USUAL, Sampling


@dataclass(frozen=True, slots=True)
class Generator:
    """A denoiser with the encoders that it was trained on. Calling it draws; its parts are for what draws otherwise."""

    denoiser: Denoiser
    text_encoder: TextEncoder
    codec: ImageCodec
    device: str

    def __call__(
        self,
        captions: Sequence[str],
        seeds: Sequence[int] | None = None,
        sampling: Sampling = USUAL,
        negative: str = "",
    ) -> Pictures:
        """A picture for each caption, all in one batch: uint8 [n, h, w, 3]. Picture i depends on caption i, seed i
        (without seeds: i) and the sampling alone, up to rounding. Guidance leads away from the negative caption."""
        noise = self.noise(range(len(captions)) if seeds is None else seeds)
        text = self.text_encoder(captions)
        latents = sample(sampling.solver, self.guided(sampling, negative), noise, text, noise_levels(sampling.steps))
        return self.decode(latents)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Unit noise [n, c, z, z], each row from a seed of its own, the same on every device."""
        config = self.denoiser.config
        shape = (config.latent_channels, config.latent_size, config.latent_size)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device)

    def guided(self, sampling: Sampling, negative: str = "", denoise: DenoiseFn | None = None) -> DenoiseFn:
        """The denoiser, or what stands for it, with guidance."""
        away_from = self.text_encoder([negative]) if negative else None
        return guided(denoise or self.denoiser, sampling.guidance, sampling.guidance_interval, away_from)

    def decode(self, latents: Tensor) -> Pictures:
        """Scaled latents [n, c, z, z] -> uint8 [n, h, w, 3]"""
        pictures: Pictures = self.codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        return pictures

    def encode(self, pictures: Pictures) -> Tensor:
        """uint8 [n, h, w, 3] -> scaled latents [n, c, z, z]"""
        return self.codec.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def load_generator(denoiser: Path, vae: str, clip: str, device: str, *, safetensors_only: bool = False) -> Generator:
    """Load all three models to a device. Raises CheckpointError or EncoderError, also where `safetensors_only` and
    weights are in another format.

    A denoiser that was trained on latents of another scale, as an imported one, draws in that scale, and the codec
    decodes from it. The weights cannot be changed to ours instead: noise has a spread of 1 at any scale of latents,
    so that the scale is part of what a noise level means.
    """
    device = choose_device(device)
    model = load_denoiser(denoiser, device)
    check_encoders(denoiser, vae, clip)
    text_encoder = load_text_encoder(clip, device, model.config.text, safetensors_only=safetensors_only)
    codec = load_image_codec(vae, device, safetensors_only=safetensors_only)
    if scaling := read_latent_scaling(denoiser):
        codec = replace(codec, scaling_factor=scaling, shift=0.0)
    _check_shapes(denoiser, model.config, text_encoder, codec)
    return Generator(model, text_encoder, codec, device)


def _check_shapes(path: Path, config: DenoiserConfig, text_encoder: TextEncoder, codec: ImageCodec) -> None:
    """Raise CheckpointError where a denoiser, whose file need not say its encoders, cannot work with these."""
    problems = [
        f"  it takes {what} of {takes} {unit}, and these make {made}"
        for what, takes, made, unit in (
            ("latents", config.latent_channels, codec.latent_channels, "channels"),
            ("text embeddings", config.text_dim, text_encoder.dim, "numbers"),
        )
        if takes != made
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit these encoders:\n" + "\n".join(problems))
