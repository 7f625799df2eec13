"""Moving averages of the weights, of one length or several. Knows nothing of training."""

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
        """Move towards a denoiser's weights, keeping `decay` of what was there."""
        averages: list[Tensor] = list(self.denoiser.parameters())
        weights: list[Tensor] = list(denoiser.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)


def start_ema(denoiser: Denoiser, decay: float) -> Ema:
    """An average that starts as a copy."""
    return Ema(decay, copy.deepcopy(denoiser).requires_grad_(False).eval())


def ema_decay_at(decay: float, step: int) -> float:
    """The decay after `step` steps where it is reached slowly: the average then covers a tenth of
    the training or more, and soon forgets the initial weights."""
    return min(decay, (1 + step) / (10 + step))
