"""Initialization of a denoiser from a trained one of another latent size or without inpainting."""

from __future__ import annotations

import torch

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser, resize_positions


def incompatible_settings(base: DenoiserConfig, config: DenoiserConfig) -> list[str]:
    """The names of settings in which the two differ so that weights cannot be transferred."""
    return [name for name in DenoiserConfig.model_fields if not _carries(name, base, config)]


def _carries(name: str, base: DenoiserConfig, config: DenoiserConfig) -> bool:
    if name == "inpainting":
        return config.inpainting or not base.inpainting
    return name == "latent_size" or bool(getattr(base, name) == getattr(config, name))


@torch.no_grad()
def transfer_weights(base: Denoiser, denoiser: Denoiser) -> None:
    """Copy the weights of a compatible denoiser (see `incompatible_settings`) into another.

    Learned positions of another latent size are interpolated. Added inputs of inpainting stay zero,
    so that the predictions equal those of the base model.
    """
    weights = {**denoiser.state_dict(), **base.state_dict()}
    if denoiser.position is not None:
        side = denoiser.config.latent_size // denoiser.config.patch_size
        weights["position"] = resize_positions(weights["position"], side, side)
    denoiser.load_state_dict(weights)
