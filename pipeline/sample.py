"""Captions -> pictures with a trained denoiser. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.devices import choose_device
from tld_model.checkpoint import CheckpointError, check_encoders, load_denoiser, read_latent_scaling
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.encoders import ImageCodec, TextEncoder, load_image_codec, load_text_encoder
from tld_model.sampler import guided, noise_levels, sample
from tld_model.solver_names import SolverName


@dataclass(frozen=True, slots=True)
class Generator:
    """A denoiser with the encoders that it was trained on."""

    denoiser: Denoiser
    text_encoder: TextEncoder
    codec: ImageCodec
    device: str

    def __call__(
        self,
        captions: Sequence[str],
        steps: int = 20,
        guidance: float = 4.5,
        seed: int = 0,
        solver: SolverName = "dpmpp_2m",
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> NDArray[np.uint8]:
        """Pictures uint8 [n, h, w, 3]. Picture i depends on caption i, the seed and i alone."""
        config = self.denoiser.config
        shape = (len(captions), config.latent_channels, config.latent_size, config.latent_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        text = self.text_encoder(captions)
        denoise = guided(self.denoiser, guidance, guidance_interval)
        latents = sample(solver, denoise, noise, text, noise_levels(steps))
        pictures: NDArray[np.uint8] = self.codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        return pictures


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
