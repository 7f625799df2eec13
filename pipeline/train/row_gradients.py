"""A denoiser whose predictions and gradients are computed some rows in each thread (CoreThreads).

To the loss and the optimizer it looks like the denoiser itself: each thread records its own graph,
and the gradients of the weights are added in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.compute.core_threads import CoreThreads, Rows


def with_row_gradients(network: nn.Module, threads: CoreThreads) -> Callable[..., Tensor]:
    """The network as a function of batches, in threads. Its inputs get no gradients."""
    if threads.count == 1:
        return network

    def call(*inputs: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return threads.by_rows(network)(*inputs)
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        predict: Callable[..., Tensor] = _InThreads.apply
        return predict(network, threads, inputs, *weights)

    return call


class _InThreads(torch.autograd.Function):
    """Threads run the network on their rows, forward and backward."""

    @staticmethod
    def forward(
        context: Any, network: nn.Module, threads: CoreThreads, inputs: Rows, *weights: Tensor
    ) -> Tensor:
        def predict(rows: Rows) -> Tensor:
            with torch.enable_grad():
                predicted: Tensor = network(*rows)
                return predicted

        context.threads, context.weights = threads, weights
        context.parts = threads.map(predict, threads.split(inputs))
        return torch.cat([part.detach() for part in context.parts])

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts, weights = context.parts, context.weights
        del context.parts, context.weights  # a graph is used once

        def gradients_of(number: int) -> tuple[Tensor | None, ...]:
            part = parts[number]
            first = sum(len(earlier) for earlier in parts[:number])
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                part, weights, gradient[first : first + len(part)], allow_unused=True
            )
            return gradients

        total: tuple[Tensor | None, ...]
        total, *others = context.threads.map(gradients_of, range(len(parts)))
        for gradients in others:
            total = tuple(_sum(*pair) for pair in zip(total, gradients, strict=True))
        return None, None, None, *total


def _sum(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    return gradient if total is None else total if gradient is None else total.add_(gradient)
