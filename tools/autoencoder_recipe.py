"""The recipe of small autoencoders: their architecture, their loss, and what is measured of them.

b images   c latent channels   h, w pixels   z latent size
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from diffusers import AutoencoderDC
from torch import Tensor

from tools.encoder_training import Recipe, Step, fit

_BLOCKS = 2  # residual blocks per level
_LATENT_NOISE = 0.3
_KL_WEIGHT = 1e-3
_PIXELS_AT_ONCE = 64 * 64 * 64  # of the images that are measured
Distance = Callable[[Tensor, Tensor], Tensor]  # of images [b, 3, h, w] in [-1, 1] => a mean []


def new_autoencoder(widths: Sequence[int], latent_channels: int) -> AutoencoderDC:
    """An untrained autoencoder for images [3, h, w] with latents [latent_channels, z, z]. Each
    width halves the size: z = h / 2^levels.

    The residual autoencoder of Chen et al. (2025): what leaves the residual blocks is added to the
    input, rearranged from space to channels, so that coarse structure need not be learned.
    """
    layout = {
        "block_types": "ResBlock",
        "block_out_channels": (widths[0], *widths),  # the first is for blocks at full size
        "layers_per_block": (0, *(_BLOCKS for _ in widths)),
        "qkv_multiscales": ((),) * (1 + len(widths)),
    }
    encoder, decoder = (
        {f"{part}_{name}": value for name, value in layout.items()}
        for part in ("encoder", "decoder")
    )
    return AutoencoderDC(latent_channels=latent_channels, **encoder, **decoder)


def layout_problem(widths: Sequence[int], latent_channels: int) -> str:
    """Why there is no autoencoder of these widths and channels, or ""."""
    if min(widths) < 4:
        return f"each of the widths {', '.join(map(str, widths))} must be 4 or more"
    for first, second in pairwise(widths):
        if 4 * first % second or 4 * second % first:
            return f"four times each of the widths {first} and {second} must divide by the other"
    if any(width % 4 for width in widths):
        return f"each of the widths {', '.join(map(str, widths))} must divide by 4"
    if widths[-1] % latent_channels:
        return f"the last width, {widths[-1]}, must divide by the {latent_channels} channels"
    return ""


def train_autoencoder(
    autoencoder: AutoencoderDC,
    batches: Iterator[Tensor],
    recipe: Recipe,
    perceptual: Distance | None = None,
) -> Iterator[Step]:
    """Train on batches of pixels, uint8 [b, 3, h, w].

    The loss is L1 + 2 MSE + a small KL divergence from a posterior of constant spread (Kingma and
    Welling, 2014), whose noise keeps the latents smooth; with `perceptual` also a distance of what
    a network sees (Zhang et al., 2018).
    """
    autoencoder.to(memory_format=torch.channels_last).train()
    device = autoencoder.device

    def loss() -> Tensor:
        pixels = to_signed(next(batches).to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = autoencoder.encode(pixels).latent
            noisy = latents + _LATENT_NOISE * torch.randn_like(latents)
            decoded = autoencoder.decode(noisy).sample.float()
        error = decoded - pixels
        divergence = latents.float().square().mean() / 2  # but for a constant
        total: Tensor = error.abs().mean() + 2 * error.square().mean() + _KL_WEIGHT * divergence
        return total if perceptual is None else total + perceptual(decoded, pixels)

    return fit(autoencoder, loss, recipe, clip_norm=1.0)


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 in [0, 255] -> float in [-1, 1]"""
    return pixels.float() / 127.5 - 1


@torch.no_grad()
def encode(autoencoder: AutoencoderDC, pixels: Tensor) -> Tensor:
    """Pixels, uint8 [b, 3, h, w] -> raw latents on the CPU, float [b, c, z, z]."""
    parts = (to_signed(part.to(autoencoder.device)) for part in pixels.split(_at_once(pixels)))
    return torch.cat([autoencoder.encode(part).latent.float().cpu() for part in parts])


@torch.no_grad()
def round_trip(autoencoder: AutoencoderDC, pixels: Tensor) -> Tensor:
    """decode(encode(pixels)), without quantization: uint8 [b, 3, h, w] -> the same."""
    return torch.cat(list(_round_trips(autoencoder, pixels)))


def round_trip_psnr(autoencoder: AutoencoderDC, pixels: Tensor) -> float:
    """Peak signal-to-noise ratio of the round trip of images, uint8 [b, 3, h, w], in dB: from the
    mean squared error over all of them. Infinite if nothing is lost."""
    error = 0.0
    for part, decoded in zip(
        pixels.split(_at_once(pixels)), _round_trips(autoencoder, pixels), strict=True
    ):
        error += ((part.double() - decoded.double()) / 255).square().sum().item()
    return -10 * math.log10(error / pixels.numel()) if error else math.inf


@torch.no_grad()
def _round_trips(autoencoder: AutoencoderDC, pixels: Tensor) -> Iterator[Tensor]:
    for part in pixels.split(_at_once(pixels)):
        decoded = autoencoder.decode(encode(autoencoder, part).to(autoencoder.device)).sample
        yield ((decoded.float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()


def _at_once(pixels: Tensor) -> int:
    return max(1, _PIXELS_AT_ONCE // math.prod(pixels.shape[2:]))


def set_scaling_factor(autoencoder: AutoencoderDC, pixels: Tensor) -> Tensor:
    """Set the scaling factor with which the latents of these images have a standard deviation of
    1. Returns the scaled latents, float [b, c, z, z]."""
    latents = encode(autoencoder, pixels)
    scale = round(1 / float(latents.std()), 5)
    autoencoder.register_to_config(scaling_factor=scale)
    return latents * scale
