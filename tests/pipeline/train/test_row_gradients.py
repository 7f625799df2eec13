"""Gradients computed by several threads: those of the network itself, in the same bits every
time."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import initial_state, train_step
from pipeline.train.loss import step_randomness
from pipeline.train.row_gradients import with_row_gradients
from tests.support.training import MODEL, SETTINGS
from tld_model.config import DenoiserConfig


class Delayed(nn.Module):
    """A small network whose threads finish in any order. It does not use one of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(97, 53), nn.Linear(3, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        time.sleep(random.random() / 100)
        out: Tensor = self.layer(x).sin()
        return out if scale is None else out * scale


def gradients(
    network: nn.Module, threads: CoreThreads, *inputs: Tensor | None
) -> list[Tensor | None]:
    network.zero_grad()
    with_row_gradients(network, threads)(*inputs).square().sum().backward()
    return [weight.grad for weight in network.parameters()]


@pytest.mark.parametrize("rows", [1, 2, 5, 32])
def test_gradients_are_those_of_the_network_up_to_rounding(rows: int) -> None:
    network, x = Delayed(), torch.randn(rows, 97)
    scale = torch.rand(rows, 1)
    for inputs in ((x,), (x, None), (x, scale)):
        pairs = zip(
            gradients(network, CoreThreads(3), *inputs),
            gradients(network, ONE_THREAD, *inputs),
            strict=True,
        )
        for ours, whole in pairs:
            assert (ours is None) == (whole is None)
            if ours is not None and whole is not None:
                torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-5)


def test_the_order_in_which_threads_finish_changes_no_bit() -> None:
    network, x, threads = Delayed(), torch.randn(64, 97), CoreThreads(4)
    first, *others = (gradients(network, threads, x)[0] for _ in range(6))
    assert first is not None
    assert all(other is not None and torch.equal(first, other) for other in others)


def test_gradients_of_several_parts_add_up_and_a_frozen_weight_has_none() -> None:
    network, x = Delayed(), torch.randn(8, 97)
    network.layer.bias.requires_grad_(False)
    call = with_row_gradients(network, CoreThreads(2))
    call(x).sum().backward()
    once = network.layer.weight.grad
    assert once is not None
    once = once.clone()
    call(x).sum().backward()
    torch.testing.assert_close(network.layer.weight.grad, 2 * once)
    assert network.layer.bias.grad is None


def test_without_gradients_nothing_is_recorded() -> None:
    network, x = Delayed(), torch.randn(4, 97)
    with torch.no_grad():
        out = with_row_gradients(network, CoreThreads(2))(x)
    assert not out.requires_grad
    torch.testing.assert_close(out, network(x).detach())


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "muon": ({}, {"optimizer": "muon"}),
    "accumulate": ({}, {"accumulate": 2}),
    "contrastive": ({}, {"contrastive": 0.05}),
    "inpainting": ({"inpainting": True, "predicts": "v"}, {}),
    "tokens": ({"text": "tokens", "qk_norm": True}, {"noise_levels": "logit_normal"}),
    "joint": ({"text": "tokens", "blocks": "joint", "qk_norm": True}, {"optimizer": "muon"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_threads_train_what_one_thread_trains_up_to_rounding(kind: str) -> None:
    model, train = KINDS[kind]
    config = TrainConfig(**SETTINGS | train)
    shape = DenoiserConfig(**MODEL.model_dump() | model)
    torch.manual_seed(0)
    text = torch.randn(8, 5, 8) if shape.text == "tokens" else torch.randn(8, 8)
    batch = Batch(torch.randn(8, 4, 4, 4), text)

    def trained(threads: CoreThreads) -> tuple[list[float], Tensor]:
        state = initial_state(config, shape, "cpu", threads)
        choices = [step_randomness(config, shape, 8, step) for step in range(4)]
        losses = [train_step(state, batch, one, config).loss.item() for one in choices]
        weights = [weight.detach().flatten() for weight in state.denoiser.parameters()]
        return losses, torch.cat(weights)

    losses, weights = trained(CoreThreads(3))
    alone, expected = trained(ONE_THREAD)
    assert losses == pytest.approx(alone, rel=1e-4)
    assert losses[-1] != losses[0]
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=2e-4)
    assert torch.equal(weights, trained(CoreThreads(3))[1])
