"""Muon in stacks, beside torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.train import muon
from pipeline.train.muon import Muon, orthogonalized, stacks_of

SHAPES = ((48, 16), (16, 16), (32, 16), (32, 16), (16, 32), (16, 48))


def matrices() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def stepped(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


def reference(weights: list[nn.Parameter]) -> torch.optim.Muon:
    return torch.optim.Muon(weights, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


def test_in_bf16_it_takes_the_steps_of_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda _: True)
    ours, theirs, start = matrices(), matrices(), matrices()
    stepped(Muon(ours, lr=0.02, weight_decay=0.1), ours)
    stepped(reference(theirs), theirs)
    for one, other, first in zip(ours, theirs, start, strict=True):
        moved = (other - first).norm()
        assert (one - other).norm() < 0.03 * moved


def test_in_fp32_its_steps_are_nearer_to_orthogonal_than_bf16_rounds() -> None:
    exact, rounded = matrices(), matrices()
    stepped(Muon(exact, lr=0.02, weight_decay=0.1), exact)
    stepped(reference(rounded), rounded)
    for one, other, first in zip(exact, rounded, matrices(), strict=True):
        assert (one - other).norm() < 0.05 * (other - first).norm()
    for update in orthogonalized([torch.randn(32, 16), torch.randn(16, 32)]):
        singular = torch.linalg.svdvals(update)
        assert singular.min() > 0.5
        assert singular.max() < 1.3


def test_a_matrix_of_any_rank_and_scale_gets_a_finite_step() -> None:
    flat = torch.ones(8, 4)
    for update in orthogonalized([torch.zeros(8, 4), flat, 1e-30 * flat, 1e30 * flat]):
        assert update.isfinite().all()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_matrix_is_in_one_stack_of_its_shape_and_threads_share_the_stacks(count: int) -> None:
    weights = [weight.detach() for weight in matrices()]
    stacks = stacks_of(weights, count)
    assert sorted(number for stack in stacks for number in stack) == list(range(len(weights)))
    assert all(len({tuple(sorted(SHAPES[n])) for n in stack}) == 1 for stack in stacks)
    assert max(map(len, stacks)) == -(-3 // count), "three of them are 16 by 32"

    alone, shared = matrices(), matrices()
    stepped(Muon(alone, ONE_THREAD, lr=0.02), alone)
    stepped(Muon(shared, CoreThreads(count), lr=0.02), shared)
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_it_continues_from_a_state_that_torchs_own_has_stored() -> None:
    theirs = matrices()
    stored = reference(theirs)
    stepped(stored, theirs, 2)
    ours = copy.deepcopy(theirs)
    resumed = Muon(ours, lr=0.02, weight_decay=0.1)
    resumed.load_state_dict(stored.state_dict())
    before = [weight.detach().clone() for weight in theirs]
    stepped(stored, theirs, 1)
    stepped(resumed, ours, 1)
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.2 * (other - start).norm()


def test_a_matrix_without_a_gradient_stays_as_it_is() -> None:
    weights = matrices()
    optimizer = Muon(weights, lr=0.02, weight_decay=0.1)
    optimizer.step()
    for one, other in zip(weights, matrices(), strict=True):
        assert torch.equal(one, other)
    weights[0].grad = torch.randn(SHAPES[0])
    optimizer.step()
    changed = [not torch.equal(one, other) for one, other in zip(weights, matrices(), strict=True)]
    assert changed == [True, *[False] * (len(SHAPES) - 1)]
