"""The training loop: a generator of optimizer steps. worker.py logs, saves and stops around it.

Every random choice of a step is a function of (seed, step), so a training that resumes at a step
continues exactly like one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_catalog.model_files import model_file
from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.compute.ranks import ALONE, Ranks, full_tensor
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.dataset.mixture import TrainingPairs
from pipeline.train.ema import Ema, ema_decay_at, start_ema
from pipeline.train.loss import PerPairLoss, StepRandomness, per_pair_loss
from pipeline.train.optimizers import Optimizers, learning_rate, make_optimizer
from pipeline.train.row_gradients import with_row_gradients
from pipeline.train.step_inputs import ahead, pinned, step_inputs
from tld_model.checkpoint import load_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.weight_transfer import transfer_weights

_STEPS_AHEAD = 2  # whose inputs are prepared while a GPU computes


@dataclass(slots=True)
class TrainState:
    """Everything that a training carries from step to step."""

    denoiser: Denoiser
    averages: tuple[Ema, ...]
    optimizer: Optimizers
    step: int
    network: Callable[..., Tensor]  # the denoiser as a step calls it: itself, or wrapped
    # A context in which gradients are not yet averaged over the ranks.
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext
    loss: PerPairLoss = per_pair_loss

    @property
    def ema(self) -> Denoiser:
        """The first moving average, which is the model unless another one is chosen."""
        return self.averages[0].denoiser


@dataclass(frozen=True, slots=True)
class TrainStep:
    """The result of one step; tensors, so that only a reader of them waits for the device."""

    step: int  # number of steps done
    loss: Tensor  # of this rank's rows
    gradient_norm: Tensor
    lr: float


def initial_state(
    config: TrainConfig, model: DenoiserConfig, device: str, threads: CoreThreads = ONE_THREAD
) -> TrainState:
    """A seeded initial denoiser, or one with the weights of train.init_from; its averages start as
    copies. On a CPU, `threads` compute its steps."""
    torch.manual_seed(config.seed)
    denoiser = Denoiser(model)
    if config.init_from:
        transfer_weights(load_denoiser(model_file(config.init_from), "cpu"), denoiser)
    denoiser = denoiser.to(device)
    averages = tuple(start_ema(denoiser, decay) for decay in config.ema_decay)
    denoiser.recomputes_blocks = config.checkpoint_blocks
    optimizer = make_optimizer(denoiser, config, threads)
    return TrainState(denoiser, averages, optimizer, 0, with_row_gradients(denoiser, threads))


def train_steps(
    state: TrainState,
    pairs: TrainingPairs,
    config: TrainConfig,
    device: str,
    ranks: Ranks = ALONE,
) -> Iterator[TrainStep]:
    """Train from the state's step to the last; the state is consistent whenever a step is yielded.

    Raises CaptionColumnError if train.caption_weights does not fit the encodings.
    """
    pairs = pairs.sampled(config.caption_weights, config.seed)
    inputs = step_inputs(pairs, state.denoiser.config, config, state.step, ranks)
    if device.startswith("cuda"):
        inputs = ahead(pinned(inputs), _STEPS_AHEAD)
    for batch, on_cpu in inputs:
        choices = on_cpu.on(device)
        yield train_step(state, batch.on(device, choices.posterior), choices, config)


def train_step(
    state: TrainState, batch: Batch, choices: StepRandomness, config: TrainConfig
) -> TrainStep:
    """One step with this rank's rows of a batch: their loss, part after part, then new weights and
    averages. Nothing here waits for a GPU."""
    state.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=batch.latents.device)
    parts = _parts(len(batch.latents), config.accumulate)
    for part in parts:
        pairs = Batch(batch.latents[part], batch.text[part])
        with nullcontext() if part is parts[-1] else state.no_sync():
            losses = state.loss(
                state.network, state.denoiser.config, pairs, choices.rows(part), config
            )
            share = losses.sum() / len(batch.latents)
            share.backward()
        loss += share.detach()
    lr = learning_rate(config, state.step)
    gradient_norm = _update(state, lr, config)
    return TrainStep(state.step, loss, gradient_norm, lr)


def _parts(rows: int, number: int) -> list[slice]:
    """Divide rows into equal parts."""
    size = rows // number
    return [slice(start, start + size) for start in range(0, rows, size)]


def _update(state: TrainState, lr: float, config: TrainConfig) -> Tensor:
    """Update weights and averages. Returns the gradient norm before clipping."""
    norm = full_tensor(nn.utils.clip_grad_norm_(state.denoiser.parameters(), config.clip_norm))
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.step += 1
    for average in state.averages:
        decay = ema_decay_at(average.decay, state.step) if config.ema_warmup else average.decay
        average.update(state.denoiser, decay)
    return norm
