"""Small VAEs of each class that can be chosen, with random weights, made by diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny


def _kl() -> Any:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        latent_channels=5,
        scaling_factor=0.7,
        shift_factor=0.25,
    )


def _tiny() -> Any:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=6,
        scaling_factor=1.3,
    )


def _dc() -> Any:
    blocks = {"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock"}
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "block_out_channels": (8, 8, 16, 16),
            "layers_per_block": (1, 1, 1, 1),
            "qkv_multiscales": ((), (), (), ()),
        }.items()
    }
    return AutoencoderDC(latent_channels=8, scaling_factor=0.41, **blocks, **sides)


def _flux2() -> Any:
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
        sample_size=32,
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 12))
    vae.bn.running_var.copy_(torch.linspace(0.2, 3, 12))
    return vae


VAES: dict[str, Callable[[], Any]] = {
    "AutoencoderKL": _kl,
    "AutoencoderTiny": _tiny,
    "AutoencoderDC": _dc,
    "AutoencoderKLFlux2": _flux2,
}
# Pixels per latent along each axis, and channels of a latent.
SHAPES = {
    "AutoencoderKL": (4, 5),
    "AutoencoderTiny": (4, 6),
    "AutoencoderDC": (8, 8),
    "AutoencoderKLFlux2": (4, 12),
}


def save_vae(class_name: str, folder: Path) -> str:
    """The folder of a VAE of this class."""
    torch.manual_seed(0)
    VAES[class_name]().save_pretrained(folder)
    return str(folder)
