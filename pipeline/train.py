"""Stage 3, encodings -> model. The loop yields; train_process.py logs, saves and stops.

Every random choice of a step follows from (seed, step), so a training that resumes at a step goes on
exactly as one that was never stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.batches import Batch, EncodedPairs, Split, batch_epochs, batch_numbers
from pipeline.caption_draw import caption_draw
from pipeline.config import TrainConfig
from pipeline.devices import autocast
from pipeline.optimizers import learning_rate, make_optimizer
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.diffusion import add_noise, denoising_loss, draw_noise_levels, drop_condition

NOISE_BINS = 5  # of the held-out loss
_HELD_OUT_PAIRS = 512  # at most, for the held-out loss


@dataclass(slots=True)
class TrainState:
    """All that a training carries from step to step."""

    denoiser: Denoiser
    ema: Denoiser
    optimizer: Optimizer
    step: int


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What one step did; tensors, so that only who reads them waits for the device."""

    step: int  # steps done
    loss: Tensor
    gradient_norm: Tensor
    lr: float


def initial_state(config: TrainConfig, model: DenoiserConfig, device: str) -> TrainState:
    """A fresh denoiser, seeded; its average starts as a copy."""
    torch.manual_seed(config.seed)
    denoiser = Denoiser(model).to(device)
    ema = copy.deepcopy(denoiser).requires_grad_(False).eval()
    return TrainState(denoiser, ema, make_optimizer(denoiser, config), step=0)


def train_steps(
    state: TrainState, pairs: EncodedPairs, split: Split, config: TrainConfig, device: str
) -> Iterator[TrainStep]:
    """Train from the state's step to the last; the state is at rest whenever a step is yielded.

    Raises CaptionColumnError.
    """
    pairs = replace(pairs, draw=caption_draw(pairs.caption_columns, config.caption_weights, config.seed))
    for numbers in batch_numbers(split.train, config.batch_size, config.seed, state.step):
        if state.step >= config.steps:
            return
        epochs = batch_epochs(len(split.train), config.batch_size, state.step)
        yield train_step(state, pairs.take(numbers, device, epochs), config, device)


def train_step(state: TrainState, batch: Batch, config: TrainConfig, device: str) -> TrainStep:
    """One step: noise the batch, predict its clean latents, update weights and average."""
    chance = torch.Generator().manual_seed(_seed_of(config.seed, state.step))
    sigma = draw_noise_levels(len(batch.latents), config.noise_alpha, config.noise_beta, chance)
    noise = torch.randn(batch.latents.shape, generator=chance)
    text = drop_condition(batch.text, config.condition_dropout, chance)
    clean, noise, sigma, text = (x.to(device, non_blocking=True) for x in (batch.latents, noise, sigma, text))

    with autocast(device, config.precision):
        predicted = state.denoiser(add_noise(clean, noise, sigma), sigma, text)
    loss = denoising_loss(predicted, clean, sigma, config.max_loss_weight).mean()
    lr = learning_rate(config, state.step)
    gradient_norm = _update(state, loss, lr, config)
    return TrainStep(state.step, loss.detach(), gradient_norm, lr)


def _update(state: TrainState, loss: Tensor, lr: float, config: TrainConfig) -> Tensor:
    """One step of the optimizer and of the average."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.denoiser.parameters(), config.clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.step += 1

    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    averages: list[Tensor] = list(state.ema.parameters())
    weights: list[Tensor] = list(state.denoiser.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
    return norm


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, pairs: EncodedPairs, split: Split, device: str) -> dict[str, float]:
    """Mean squared error of x0 on held-out pairs, plain, at the same noise every time: over all noise
    levels ("held_out_loss") and in equal bins of them ("held_out_loss/0.0-0.2", …)."""
    numbers = split.held_out[:_HELD_OUT_PAIRS]
    chance = torch.Generator().manual_seed(0)
    sums = torch.zeros(NOISE_BINS, dtype=torch.float64)
    for start in range(0, len(numbers), 128):
        batch = pairs.take(numbers[start : start + 128], device)
        for index in range(NOISE_BINS):
            sigma = (index + torch.rand(len(batch.text), generator=chance)) / NOISE_BINS
            noise = torch.randn(batch.latents.shape, generator=chance)
            clean, noise, sigma, text = (x.to(device) for x in (batch.latents, noise, sigma, batch.text))
            predicted = denoiser(add_noise(clean, noise, sigma), sigma, text)
            sums[index] += denoising_loss(predicted, clean, sigma, max_weight=1).double().sum().cpu()
    means = (sums / len(numbers)).tolist()
    bins = {f"held_out_loss/{i / NOISE_BINS:.1f}-{(i + 1) / NOISE_BINS:.1f}": mean for i, mean in enumerate(means)}
    return {"held_out_loss": sum(means) / NOISE_BINS, **bins}


def _seed_of(seed: int, step: int) -> int:
    """A seed for one step's random choices, unlike any other step's."""
    return (seed * 1_000_003 + step) % 2**63
