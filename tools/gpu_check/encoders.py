"""Encoders in the shapes of real ones, with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import CLIPConfig, CLIPModel

from tld_model.encoders.clip import load_clip
from tld_model.encoders.names import encoder_folder
from tld_model.encoders.pretrained import weights_dtype
from tools.gpu_check.machine import Machine

# The towers of openai/clip-vit-large-patch14 and the autoencoder of SDXL.
_CLIP_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
    "patch_size": 14,
    "image_size": 224,
}
_VAE_CHANNELS = (128, 256, 512, 512)


def make_vae(folder: Path, machine: Machine) -> str:
    """A VAE in the shape of SDXL's, on a CPU with few channels. Returns its folder."""
    vae = folder / "vae"
    with torch.device(machine.device):
        _vae(machine).to(weights_dtype(machine.device)).save_pretrained(vae)
    return str(vae)


def make_clip(folder: Path, machine: Machine) -> str:
    """CLIP in the shape of ViT-L/14, on a CPU with one layer, and the tokenizer of the encoder that
    ships with tld. Returns its folder."""
    clip, tokenizer = folder / "clip", encoder_folder("shapes-clip")
    end = load_clip("shapes-clip", "cpu").tokenizer.eos_token_id
    with torch.device(machine.device):
        _clip(machine, end).to(weights_dtype(machine.device)).save_pretrained(clip)
    assert tokenizer is not None, "it ships with tld"
    for path in tokenizer.glob("tokenizer*.json"):
        shutil.copy(path, clip)
    return str(clip)


def _vae(machine: Machine) -> Any:
    channels = _VAE_CHANNELS if machine.is_gpu else (32,) * 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=machine.size(2, 1),
        latent_channels=4,
        norm_num_groups=32,
        sample_size=1024,
        scaling_factor=0.13025,
        force_upcast=False,
    )


def _clip(machine: Machine, end: int) -> Any:
    few = {} if machine.is_gpu else {"num_hidden_layers": 1}
    return CLIPModel(
        CLIPConfig(
            projection_dim=768,
            text_config={**_CLIP_TEXT, **few, "eos_token_id": end, "pad_token_id": end},
            vision_config={**_CLIP_VISION, **few},
        )
    )
