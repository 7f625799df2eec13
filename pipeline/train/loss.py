"""The training loss of one step: its random choices for the whole batch, and the loss of any part.

Choose first, then slice, then compute: the choices follow from (seed, step) on the CPU, so parts
computed one after the other, or by different processes, add up to the step that one process would
do.
b batch   c channels   z latent size   t text width
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.compute.devices import autocast
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from tld_model.config import DenoiserConfig
from tld_model.diffusion import (
    Quantile,
    add_noise,
    beta_quantile,
    clean_by_neighbour,
    denoising_loss,
    drop_condition,
    logit_normal_quantile,
    sample_dropped,
    sample_noise_levels,
    swap_neighbours,
)
from tld_model.inpainting import known_part, sample_masks


@dataclass(frozen=True, slots=True)
class StepRandomness:
    """The random choices of one step, one row per pair of its batch."""

    sigma: Tensor  # noise levels [b]
    noise: Tensor  # [b, c, z, z]
    dropped: Tensor  # captions that become 'no condition', bool [b]
    mask: Tensor | None  # for inpainting models: 1 where the latent is known [b, 1, z, z]
    posterior: Tensor | None = None  # unit noise of samples from the VAE's posterior [b, c, z, z]

    def rows(self, part: slice) -> StepRandomness:
        """The choices for a part of the batch."""
        return self._each(lambda tensor: tensor[part])

    def pinned(self) -> StepRandomness:
        """A copy in memory from which a GPU copies while the host goes on."""
        return self._each(Tensor.pin_memory)

    def on(self, device: str) -> StepRandomness:
        """The choices on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> StepRandomness:
        mask = change(self.mask) if self.mask is not None else None
        posterior = change(self.posterior) if self.posterior is not None else None
        sigma, noise, dropped = change(self.sigma), change(self.noise), change(self.dropped)
        return StepRandomness(sigma, noise, dropped, mask, posterior)


def step_randomness(
    config: TrainConfig,
    model: DenoiserConfig,
    count: int,
    step: int,
    *,
    samples_posterior: bool = False,
) -> StepRandomness:
    """The choices of a step of `count` pairs, which follow from the seed and the step, on the
    CPU."""
    generator = torch.Generator().manual_seed(_seed_of(config.seed, step))
    edge = model.latent_size
    sigma = sample_noise_levels(count, noise_quantile(config), generator, config.noise_shift)
    noise = torch.randn(count, model.latent_channels, edge, edge, generator=generator)
    dropped = sample_dropped(count, config.condition_dropout, generator)
    mask = sample_masks(count, edge, generator) if model.inpainting else None
    # Drawn last, so that without it all others are the same.
    posterior = torch.randn(noise.shape, generator=generator) if samples_posterior else None
    return StepRandomness(sigma, noise, dropped, mask, posterior)


def noise_quantile(config: TrainConfig) -> Quantile:
    """The distribution of noise levels, as its quantile function."""
    if config.noise_levels == "beta":
        return beta_quantile(config.noise_alpha, config.noise_beta)
    return logit_normal_quantile(config.noise_location, config.noise_scale)


PerPairLoss = Callable[
    [Callable[..., Tensor], DenoiserConfig, Batch, StepRandomness, TrainConfig], Tensor
]


def per_pair_loss(
    network: Callable[..., Tensor],
    model: DenoiserConfig,
    batch: Batch,
    choices: StepRandomness,
    config: TrainConfig,
) -> Tensor:
    """Add noise to the pairs, predict their clean latents with the denoiser or its wrapper, and
    weight the errors: [b]"""
    clean, sigma, noise = batch.latents, choices.sigma, choices.noise
    text = drop_condition(batch.text, choices.dropped)
    known = known_part(clean, choices.mask) if choices.mask is not None else None
    noisy = add_noise(clean, noise, sigma)

    with autocast(str(clean.device), config.precision):
        predicted = network(noisy, sigma, text, known)

    bound = largest_weight(config, model)
    loss = denoising_loss(predicted, clean, sigma, bound, config.loss_weight)
    if config.contrastive:
        other = clean_by_neighbour(noisy, clean, noise, sigma)
        unlike = caption_differs(text)
        loss = loss - config.contrastive * unlike * denoising_loss(
            predicted, other, sigma, bound, config.loss_weight
        )
    return loss


def largest_weight(config: TrainConfig, model: DenoiserConfig) -> float:
    """The upper limit of the loss weight; unset, the limit that gives the squared error of what the
    model predicts."""
    if config.max_loss_weight is not None:
        return config.max_loss_weight
    return 1.0 if model.predicts == "x0" else math.inf


def caption_differs(text: Tensor) -> Tensor:
    """1 where a row of text has a condition that differs from its neighbour's, else 0: [b]"""
    rows = text.flatten(1)
    differs = (rows != swap_neighbours(rows)).any(dim=1) & rows.any(dim=1)
    return differs.to(rows)


def _seed_of(seed: int, step: int) -> int:
    """The seed of one step's random choices, different for every step."""
    return (seed * 1_000_003 + step) % 2**63
