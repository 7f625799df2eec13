"""Moving averages of the weights, of one length or several. Knows nothing of training."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tld_model.denoiser import Denoiser


@dataclass(frozen=True, slots=True)
class Average:
    """An exponential moving average of a denoiser's weights."""

    decay: float
    denoiser: Denoiser

    @torch.no_grad()
    def update(self, denoiser: nn.Module, decay: float) -> None:
        """Move towards a denoiser's weights, keeping `decay` of what was there."""
        averages: list[Tensor] = list(self.denoiser.parameters())
        weights: list[Tensor] = list(denoiser.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)


def start_average(denoiser: Denoiser, decay: float) -> Average:
    """An average that starts as a copy."""
    return Average(decay, copy.deepcopy(denoiser).requires_grad_(False).eval())


def warmed_up(decay: float, step: int) -> float:
    """The decay after `step` steps where it is reached slowly: the average then covers a tenth of the training or
    more, and soon forgets the initial weights."""
    return min(decay, (1 + step) / (10 + step))
