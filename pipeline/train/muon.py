"""Muon (Jordan et al., 2024) for many matrices at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.compute.devices import has_bf16

# Of the quintic polynomial a x + b x^3 + c x^5 that each iteration applies to the singular values.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_LEAST_NORM = 1e-7


class Muon(torch.optim.Muon):
    """torch's Muon, with its settings and state, for matrices of a few shapes.

    The matrices of one shape are stacked, so that a GPU multiplies all of them at once, and on a
    CPU `threads` share them. They are multiplied in bf16 only if the device has it: torch's own
    Muon emulates it elsewhere, at thirty times the cost.
    """

    def __init__(
        self, params: Sequence[nn.Parameter], threads: CoreThreads = ONE_THREAD, **settings: Any
    ) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **settings)
        self._threads = threads

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            self._update(group)

    def _update(self, group: dict[str, Any]) -> None:
        matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
        if not matrices:
            return
        gradients = [matrix.grad for matrix in matrices]
        momenta = [self._momentum(matrix) for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])

        def update(numbers: Sequence[int]) -> None:
            rates = orthogonalized([ahead[number] for number in numbers])
            longer = max(ahead[numbers[0]].shape)
            torch._foreach_add_(
                [matrices[number] for number in numbers],
                rates,
                alpha=-group["lr"] * 0.2 * math.sqrt(longer),
            )

        self._threads.map(update, stacks_of(ahead, self._threads.count))

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def stacks_of(matrices: Sequence[Tensor], parts: int) -> list[list[int]]:
    """The numbers of the matrices that are multiplied together: of one shape, lying or standing,
    and divided among `parts` threads."""
    shapes: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, matrix in enumerate(matrices):
        shapes[tuple(sorted(matrix.shape))].append(number)
    return [
        numbers[part::parts]
        for numbers in shapes.values()
        for part in range(min(parts, len(numbers)))
    ]


def orthogonalized(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearest matrices with orthonormal rows or columns, roughly: Newton-Schulz iterations
    bring all singular values to between 0.7 and 1.2. All matrices [r, c] or [c, r]."""
    lying = [matrix if _lies(matrix) else matrix.mT for matrix in matrices]
    x = torch.stack(lying)  # [n, r, c], r <= c
    x = x.to(torch.bfloat16 if has_bf16(str(x.device)) else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT  # [n, r, r]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return [
        update if _lies(matrix) else update.mT
        for matrix, update in zip(matrices, x.float(), strict=True)
    ]


def _lies(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
