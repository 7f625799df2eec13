"""A trained denoiser's weights as the start of another: with more positions, or with the inputs of
inpainting.

Knows nothing of files.
"""

from __future__ import annotations

import torch

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser, resize_positions


def incompatible_settings(base: DenoiserConfig, config: DenoiserConfig) -> list[str]:
    """Names of the settings in which the two differ and no weights can be carried over."""
    return [name for name in DenoiserConfig.model_fields if not _carries(name, base, config)]


def _carries(name: str, base: DenoiserConfig, config: DenoiserConfig) -> bool:
    if name == "inpainting":
        return config.inpainting or not base.inpainting
    return name == "latent_size" or bool(getattr(base, name) == getattr(config, name))


@torch.no_grad()
def transfer_weights(base: Denoiser, denoiser: Denoiser) -> None:
    """Give a denoiser the weights of another that fits it (see `incompatible_settings`).

    Learned positions of another latent size are interpolated; the added inputs of inpainting stay
    at zero, so that the predictions are the base's.
    """
    weights = {**denoiser.state_dict(), **base.state_dict()}
    if denoiser.position is not None:
        side = denoiser.config.latent_size // denoiser.config.patch_size
        weights["position"] = resize_positions(weights["position"], side, side)
    denoiser.load_state_dict(weights)
