"""The memory of a training step, computed from a few images: what fits on a device, and which
settings need less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import TrainState
from pipeline.train.loss import StepRandomness, per_pair_loss

_FEW, _MORE = 2, 4  # images of the passes that are counted
_USABLE = 0.9  # of a device's memory; the rest is for its driver, and lost between allocations

Inputs = Callable[[int], tuple[Batch, StepRandomness]]  # of a step with so many images


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What a training step holds at its peak, in bytes, as a line over the images that it
    processes at a time."""

    constant: int
    per_image: int

    def of(self, images: int) -> int:
        """With this many images at a time."""
        return self.constant + images * self.per_image

    def images_in(self, room: int) -> int:
        """The most images at a time for which there is room."""
        return max(0, (room - self.constant) // self.per_image)


@dataclass(frozen=True, slots=True)
class StepMemories:
    """The memory of a step without and with train.checkpoint_blocks."""

    plain: StepMemory
    recomputed: StepMemory

    def of(self, config: TrainConfig) -> StepMemory:
        """As configured."""
        return self.recomputed if config.checkpoint_blocks else self.plain


def step_memories(
    state: TrainState, config: TrainConfig, inputs: Inputs, threads: int = 1
) -> StepMemories:
    """Compute the memory of a step from what its forward pass keeps of a few images, and from the
    sizes of weights, gradients, averages and moments. `threads` each hold gradients of their own.

    Not counted are the results that live only inside one operation and the next, and compiled
    blocks, which keep less. With checkpoint_blocks the peak is in the backward pass: the inputs of
    all blocks, and all that one block keeps.
    """
    weights = sum(weight.nbytes for weight in state.denoiser.parameters())
    always = weights * (1 + threads + len(state.averages)) + _moments(state)
    plain, inputs_only = (
        _saved_line(state, config, inputs, recomputes=recomputes) for recomputes in (False, True)
    )
    layers = len(state.denoiser.blocks)

    def with_one_block(of_inputs: int, of_all: int) -> int:
        return of_inputs + (of_all - of_inputs) // layers

    return StepMemories(
        StepMemory(always + plain.constant, plain.per_image),
        StepMemory(
            always + with_one_block(inputs_only.constant, plain.constant),
            with_one_block(inputs_only.per_image, plain.per_image),
        ),
    )


def _moments(state: TrainState) -> int:
    """The bytes of the optimizer's state after its first step."""
    weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    return sum(
        weight.nbytes * len(state.optimizer.remembers(number) - {"step"})
        for number, weight in enumerate(weights)
    )


def _saved_line(
    state: TrainState, config: TrainConfig, inputs: Inputs, *, recomputes: bool
) -> StepMemory:
    """What the forward pass keeps for the backward pass, beside the weights."""
    few, more = (
        _saved(state, config, *inputs(count), recomputes=recomputes) for count in (_FEW, _MORE)
    )
    per_image = (more - few) // (_MORE - _FEW)
    return StepMemory(few - _FEW * per_image, per_image)


def _saved(
    state: TrainState,
    config: TrainConfig,
    batch: Batch,
    choices: StepRandomness,
    *,
    recomputes: bool,
) -> int:
    denoiser = state.denoiser
    weights = {weight.untyped_storage().data_ptr() for weight in denoiser.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # its memory is not used again
        return tensor

    before = denoiser.recomputes_blocks
    denoiser.recomputes_blocks = recomputes
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = per_pair_loss(denoiser, denoiser.config, batch, choices, config)
    finally:
        denoiser.recomputes_blocks = before
    del losses
    return sum(
        tensor.untyped_storage().nbytes() for start, tensor in saved.items() if start not in weights
    )


def usable_memory(device: str) -> int:
    """The bytes of a device's memory that a training may count on."""
    if device.startswith("cuda"):
        return int(_USABLE * torch.cuda.mem_get_info(device)[1])
    return int(_USABLE * psutil.virtual_memory().total)


def images_at_a_time(config: TrainConfig, ranks: int) -> int:
    """The images that one of several processes holds at a time."""
    return config.batch_size // ranks // config.accumulate


def parts_that_fit(config: TrainConfig, ranks: int, most: int) -> int | None:
    """The least train.accumulate, from the configured one on, with at most this many images at a
    time; None if there is none."""
    own, least = config.batch_size // ranks, 2 if config.contrastive else 1
    return next(
        (
            parts
            for parts in range(config.accumulate, own + 1)
            if own % (parts * least) == 0 and own // parts <= most
        ),
        None,
    )


def advice_for_less_memory(config: TrainConfig) -> str:
    """The settings with which a step needs less memory than as configured."""
    accumulate = "Twice the train.accumulate halves the memory of activations"
    if config.checkpoint_blocks:
        return accumulate
    return (
        "train.checkpoint_blocks=true needs much less memory, for about a third more computation. "
        + accumulate
    )
