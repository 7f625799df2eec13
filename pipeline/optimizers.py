"""Gradients -> weights: the optimizer and its learning rate. Knows nothing of the loss."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from pipeline.config import TrainConfig


def make_optimizer(denoiser: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) over all weights."""
    return AdamW(
        denoiser.parameters(), lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter, 2017) or no change."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))
