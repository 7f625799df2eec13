from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from tld_model.layers import FeedForward
from tools.gpu_check.depthwise import _agreement


def test_errors_are_those_against_fp32() -> None:
    layer = FeedForward(4, 2).bfloat16()
    layer.expand, layer.contract = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    tokens = torch.randn(2, 9, 8, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(2, 9, 8).bfloat16()

    same = _agreement(layer, (layer, layer), tokens, gradient)
    assert 0 < same["layers"] < 0.02
    assert same["fused"] == same["layers"]
    assert same["repeats_exactly"]
    assert layer.depthwise.weight.dtype == torch.bfloat16

    factors = iter((1.1, 1.2))

    def wrong_by_another_factor(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = layer(x)
        return out * next(factors)

    def wrong_in_one_gradient(x: torch.Tensor) -> torch.Tensor:
        bias = layer.depthwise.bias
        assert bias is not None
        same_twice = bias + (bias - bias.detach())  # its gradient is doubled
        out: torch.Tensor = functional_call(layer, {"depthwise.bias": same_twice}, (x,))
        return out

    assert _agreement(layer, (layer, wrong_in_one_gradient), tokens, gradient)["fused"] > 0.9

    wrong = _agreement(layer, (layer, wrong_by_another_factor), tokens, gradient)
    assert wrong["fused"] == pytest.approx(0.1, abs=0.02)
    assert not wrong["repeats_exactly"]
