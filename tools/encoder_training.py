"""The training loop of the small encoders: AdamW with a one-cycle learning rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_RISING = 0.0499  # of all steps; with 0.05, OneCycleLR divides by zero in trainings of 20 steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one training."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step of a training."""

    number: int  # from 1
    loss: Tensor  # float []
    seconds: float  # since the start


def fit(
    model: nn.Module, loss_of_batch: Callable[[], Tensor], recipe: Recipe, clip_norm: float
) -> Iterator[Step]:
    """Train in place, one step at a time. The learning rate rises over the first 5 % of the steps
    and then falls to almost 0 (Smith and Topin, 2018)."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, recipe.steps, pct_start=_RISING
    )
    started = time.monotonic()
    for number in range(1, recipe.steps + 1):
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        schedule.step()
        yield Step(number, loss.detach(), time.monotonic() - started)
