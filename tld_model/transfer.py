"""A trained denoiser's weights as the start of another: with more positions, or with the inputs of inpainting.

Knows nothing of files.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser


def unfit(base: DenoiserConfig, config: DenoiserConfig) -> list[str]:
    """Names of the settings in which the two differ and no weights can be carried over."""
    return [name for name in DenoiserConfig.model_fields if not _carries(name, base, config)]


def _carries(name: str, base: DenoiserConfig, config: DenoiserConfig) -> bool:
    if name == "inpainting":
        return config.inpainting or not base.inpainting
    return name == "latent_size" or bool(getattr(base, name) == getattr(config, name))


@torch.no_grad()
def carry_over(base: Denoiser, denoiser: Denoiser) -> None:
    """Give a denoiser the weights of another that fits (`unfit`). Learned positions of another latent size are
    interpolated; what inpainting adds stays at zero, so that the predictions are the base's."""
    weights = {**denoiser.state_dict(), **base.state_dict()}
    if denoiser.position is not None:
        weights["position"] = resize_positions(weights["position"], denoiser.config.tokens)
    denoiser.load_state_dict(weights)


def resize_positions(positions: Tensor, tokens: int) -> Tensor:
    """Learned positions [n, d] of a square -> [m, d], bicubic (Dosovitskiy et al., 2021, section 3.2, interpolate so
    where images grow)."""
    if len(positions) == tokens:
        return positions
    before, after = round(len(positions) ** 0.5), round(tokens**0.5)
    square = positions.T.unflatten(1, (before, before))[None]  # [1, d, s, s]
    return F.interpolate(square, (after, after), mode="bicubic").flatten(2)[0].T
