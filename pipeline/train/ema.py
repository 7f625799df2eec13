"""Exponential moving averages (EMA) of the weights, one or several of different length."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tld_model.denoiser import Denoiser


@dataclass(frozen=True, slots=True)
class Ema:
    """An exponential moving average of a denoiser's weights."""

    decay: float
    denoiser: Denoiser

    @torch.no_grad()
    def update(self, denoiser: nn.Module, decay: float) -> None:
        """Move towards a denoiser's weights: decay * average + (1 - decay) * weights."""
        averages: list[Tensor] = list(self.denoiser.parameters())
        weights: list[Tensor] = list(denoiser.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)


def start_ema(denoiser: Denoiser, decay: float) -> Ema:
    """An average that starts as a copy of the denoiser."""
    return Ema(decay, copy.deepcopy(denoiser).requires_grad_(False).eval())


def ema_decay_at(decay: float, step: int) -> float:
    """The decay after `step` steps with warm-up. Until the decay is reached, the average covers
    about a ninth of the steps so far, and so it soon forgets the initial weights."""
    return min(decay, (1 + step) / (10 + step))
