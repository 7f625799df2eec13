"""The held-out loss: mean squared error of the clean latent, over all noise levels and in bins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.dataset.encoded_dataset import EncodedDataset
from pipeline.dataset.split import Split
from tld_model.diffusion import add_noise, denoising_loss

NOISE_BINS = 5
_HELD_OUT_PAIRS = 512  # at most


def held_out_loss(
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    pairs: EncodedDataset,
    split: Split,
    device: str,
) -> dict[str, float]:
    """The means of `held_out_losses` over all pairs: for all noise levels ("held_out_loss") and for
    equal bins of them ("held_out_loss/0.0-0.2", …)."""
    return {
        name: losses.mean().item()
        for name, losses in held_out_losses(denoiser, pairs, split, device).items()
    }


@torch.no_grad()
def held_out_losses(
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    pairs: EncodedDataset,
    split: Split,
    device: str,
) -> dict[str, Tensor]:
    """The unweighted squared error of x0 for each of the first held-out pairs, with the same noise
    in every call: float64 [n], under the names of `held_out_loss`."""
    numbers = split.held_out[:_HELD_OUT_PAIRS]
    generator = torch.Generator().manual_seed(0)
    losses = torch.zeros(NOISE_BINS, len(numbers), dtype=torch.float64)
    for start in range(0, len(numbers), 128):
        batch = pairs.batch(numbers[start : start + 128], device)
        for index in range(NOISE_BINS):
            sigma = (index + torch.rand(len(batch.text), generator=generator)) / NOISE_BINS
            noise = torch.randn(batch.latents.shape, generator=generator)
            clean, noise, sigma, text = (
                x.to(device) for x in (batch.latents, noise, sigma, batch.text)
            )
            predicted = denoiser(add_noise(clean, noise, sigma), sigma, text)
            errors = denoising_loss(predicted, clean, sigma, max_weight=1)
            losses[index, start : start + len(errors)] = errors.double().cpu()
    bins = {
        f"held_out_loss/{i / NOISE_BINS:.1f}-{(i + 1) / NOISE_BINS:.1f}": row
        for i, row in enumerate(losses)
    }
    return {"held_out_loss": losses.mean(dim=0), **bins}
