"""A model that was never trained: its pictures show nothing, but depend on every input."""

from __future__ import annotations

import torch

from pipeline.compute.inference import inference_on
from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_metadata import Encoder, ModelIdentity, Origin
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec

ORIGIN = Origin(
    model=ModelIdentity(
        source="untrained",
        digest="0" * 64,
        vae=Encoder(name="shapes-vae", identity="1" * 64),
        clip=Encoder(name="shapes-clip", identity="2" * 64),
    ),
    device="cpu",
    tld="0.2.0",
)


def untrained_generator(**changed: object) -> ImageGenerator:
    """With the shipped encoders, and every weight at random."""
    torch.manual_seed(0)
    config = DenoiserConfig(latent_size=8, text_dim=64, width=64, layers=2).model_dump() | changed
    denoiser = Denoiser(DenoiserConfig.model_validate(config)).eval()
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    text_encoder = load_text_encoder("shapes-clip", "cpu", denoiser.config.text)
    return ImageGenerator(
        denoiser, text_encoder, load_image_codec("shapes-vae", "cpu"), inference_on("cpu")
    )
