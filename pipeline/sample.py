"""Captions -> pictures with a trained denoiser. Knows nothing of stages or scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.devices import choose_device
from tld_model.checkpoint import check_encoders, load_denoiser
from tld_model.denoiser import Denoiser
from tld_model.encoders import ImageCodec, TextEncoder, load_image_codec, load_text_encoder
from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m


@dataclass(frozen=True, slots=True)
class Generator:
    """A denoiser with the encoders that it was trained on."""

    denoiser: Denoiser
    text_encoder: TextEncoder
    codec: ImageCodec
    device: str

    def __call__(
        self, captions: Sequence[str], steps: int = 20, guidance: float = 4.5, seed: int = 0
    ) -> NDArray[np.uint8]:
        """Pictures uint8 [n, h, w, 3]. Picture i depends on caption i, the seed and i alone."""
        config = self.denoiser.config
        shape = (len(captions), config.latent_channels, config.latent_size, config.latent_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        text = self.text_encoder(captions)
        latents = sample_dpmpp_2m(guided(self.denoiser, guidance), noise, text, noise_levels(steps))
        pictures: NDArray[np.uint8] = self.codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        return pictures


def load_generator(denoiser: Path, vae: str, clip: str, device: str) -> Generator:
    """Load all three models to a device. Raises CheckpointError or EncoderError."""
    device = choose_device(device)
    model = load_denoiser(denoiser, device)
    check_encoders(denoiser, vae, clip)
    return Generator(model, load_text_encoder(clip, device, model.config.text), load_image_codec(vae, device), device)
