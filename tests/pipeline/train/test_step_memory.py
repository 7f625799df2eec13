"""What a step is projected to hold is what it holds, and the advice names settings that fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import TrainState, initial_state, train_step
from pipeline.train.loss import StepRandomness, step_randomness
from pipeline.train.step_memory import (
    StepMemories,
    StepMemory,
    advice_for_less_memory,
    images_at_a_time,
    parts_that_fit,
    step_memories,
    usable_memory,
)
from tests.support.training import SETTINGS
from tld_model.config import DenoiserConfig

MODEL = DenoiserConfig(latent_size=16, text_dim=8, width=128, layers=6, noise_embed_dim=16)
JOINT = MODEL.model_copy(update={"blocks": "joint"})
BATCH = 32


def settings(**more: Any) -> TrainConfig:
    return TrainConfig(**SETTINGS | {"batch_size": BATCH} | more)


def inputs(count: int) -> tuple[Batch, StepRandomness]:
    batch = Batch(torch.randn(count, 4, 16, 16), torch.randn(count, 8))
    return batch, step_randomness(settings(), MODEL, count, step=0)


def most_bytes(state: TrainState, config: TrainConfig) -> int:
    """The most that torch allocates in a step, beside what lives before and after it."""
    step = inputs(BATCH)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train_step(state, *step, config)
        state.optimizer.zero_grad()
    assert profiler.profiler
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("model", [MODEL, JOINT], ids=["original", "joint"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"checkpoint_blocks": True},
        {"precision": "bf16"},
        {"precision": "bf16", "checkpoint_blocks": True},
        {"accumulate": 2, "contrastive": 0.05, "ema_decay": [0.9, 0.99]},
        {"optimizer": "muon", "checkpoint_blocks": True, "accumulate": 2},
    ],
)
def test_a_step_holds_what_was_projected(more: dict[str, Any], model: DenoiserConfig) -> None:
    config = settings(**more)
    state = initial_state(config, model, "cpu")
    projected = step_memories(state, config, inputs).of(config).of(images_at_a_time(config, 1))
    assert state.denoiser.recomputes_blocks is config.checkpoint_blocks, "as before"
    train_step(state, *inputs(BATCH), config)
    state.optimizer.zero_grad()
    moments = [
        tensor.nbytes
        for memory in state.optimizer.state_dict()["state"].values()
        for tensor in memory.values()
        if isinstance(tensor, torch.Tensor) and tensor.ndim
    ]
    models = (state.denoiser, *(average.denoiser for average in state.averages))
    lasting = sum(weight.nbytes for model in models for weight in model.parameters())
    assert projected == pytest.approx(lasting + sum(moments) + most_bytes(state, config), rel=0.15)


def test_threads_hold_gradients_of_their_own() -> None:
    config = settings()
    state = initial_state(config, MODEL, "cpu")
    one, three = (step_memories(state, config, inputs, threads) for threads in (1, 3))
    weights = sum(weight.nbytes for weight in state.denoiser.parameters())
    assert three.plain.of(5) - one.plain.of(5) == 2 * weights


def test_a_line_says_how_many_images_have_room() -> None:
    memory = StepMemory(constant=100, per_image=10)
    assert (memory.of(7), memory.images_in(179), memory.images_in(99)) == (170, 7, 0)
    both = StepMemories(memory, StepMemory(90, 2))
    assert both.of(settings()) == memory
    assert both.of(settings(checkpoint_blocks=True)).per_image == 2
    assert usable_memory("cpu") > 2**28


def test_parts_are_the_fewest_that_fit_and_are_allowed() -> None:
    assert parts_that_fit(settings(), 1, most=32) == 1
    assert parts_that_fit(settings(), 1, most=31) == 2
    assert parts_that_fit(settings(), 2, most=5) == 4
    assert parts_that_fit(settings(accumulate=8), 1, most=32) == 8
    assert parts_that_fit(settings(batch_size=12), 1, most=5) == 3
    assert parts_that_fit(settings(batch_size=12, contrastive=0.1), 1, most=3) == 6
    assert parts_that_fit(settings(batch_size=12, contrastive=0.1), 1, most=1) is None
    assert parts_that_fit(settings(), 1, most=0) is None


def test_the_advice_names_a_setting_that_is_not_yet_used() -> None:
    assert "train.checkpoint_blocks=true" in advice_for_less_memory(settings())
    accumulate_only = advice_for_less_memory(settings(checkpoint_blocks=True))
    assert accumulate_only == "Twice the train.accumulate halves the memory of activations"
