"""Training steps on random inputs that are already on the device."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pipeline.bench.model_speed import forward_operations, random_batch
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import TrainState, train_step
from pipeline.train.loss import step_randomness
from tools.gpu_check.machine import Machine


def batch_on(machine: Machine, config: RunConfig, count: int) -> Batch:
    """Random pairs on the device."""
    batch = random_batch(config, count)
    return Batch(batch.latents.to(machine.device), batch.text.to(machine.device))


def step_of(machine: Machine, state: TrainState, config: RunConfig) -> Callable[[], Tensor]:
    """A training step, which returns its loss."""
    size = config.train.batch_size
    batch = batch_on(machine, config, size)
    choices = step_randomness(config.train, config.model, size, step=0).on(machine.device)
    return lambda: train_step(state, batch, choices, config.train).loss


def step_tflop(config: RunConfig) -> float:
    """The floating-point operations of a training step, matrix products and convolutions, in units
    of 10^12; the backward pass takes twice those of the forward pass."""
    return 3 * forward_operations(config) * config.train.batch_size / 1e12
