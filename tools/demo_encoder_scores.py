"""Scores of the small encoders that ship with the project: PSNR of the VAE, retrieval with CLIP."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from data_catalog.shapes import dataset as shapes

_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)  # CLIP's pixel statistics
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def measure_psnr(vae: AutoencoderKL, drawings: list[shapes.Drawing]) -> float:
    """Peak signal-to-noise ratio of decode(encode(images)) in dB, from the mean squared error over
    all images."""
    original = np.stack([drawing.pixels() for drawing in drawings])
    error = (original.astype(np.float64) - reconstruct(vae, drawings)) / 255
    return float(-10 * np.log10(np.mean(error**2)))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, drawings: list[shapes.Drawing]) -> shapes.Pixels:
    """Images uint8 [n, 64, 64, 3] after a round trip through the VAE, without quantization."""
    pixels = to_tensor([drawing.pixels() for drawing in drawings]) * 2 - 1
    decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    rounded = ((decoded + 1) * 127.5).round().clamp(0, 255).byte()
    result: shapes.Pixels = rounded.permute(0, 2, 3, 1).numpy()
    return result


@torch.no_grad()
def measure_retrieval(
    clip: CLIPModel, tokenizer: CLIPTokenizer, drawings: list[shapes.Drawing]
) -> float:
    """The fraction of images whose own caption is the nearest among 100 distinct captions."""
    hits = []
    for start in range(0, len(drawings), 100):
        batch = drawings[start : start + 100]
        tokens = tokenizer([d.attributes.caption for d in batch], padding=True, return_tensors="pt")
        pixels = normalized(batch)
        nearest = clip(**tokens, pixel_values=pixels).logits_per_image.argmax(dim=1)
        hits.append((nearest == torch.arange(len(batch))).float().mean())
    return float(torch.stack(hits).mean())


def to_tensor(images: list[shapes.Pixels]) -> Tensor:
    """Images uint8 [64, 64, 3] -> float [n, 3, 64, 64] in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def normalized(drawings: list[shapes.Drawing]) -> Tensor:
    """Pixels float [n, 3, 64, 64] with CLIP's normalization."""
    return (to_tensor([drawing.pixels() for drawing in drawings]) - _MEAN) / _STD
