"""Token states as uint8, with a scale for each token."""

from __future__ import annotations

import pytest
import torch

from tld_model.quantize_tokens import StoredStates, dequantize_tokens, quantize_tokens


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e5])
def test_no_value_is_further_off_than_half_a_level(size: float) -> None:
    states = size * torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(1))
    states[0, 0, 3] = 40 * size
    stored = quantize_tokens(states)
    assert stored.scale is not None
    assert (stored.states.dtype, stored.scale.dtype) == (torch.uint8, torch.float16)
    error = (dequantize_tokens(stored) - states).abs()
    assert (error <= stored.scale.float()[..., None] * 0.5001).all()
    widest = states.abs().amax(dim=-1)
    tolerance = max(2e-3, 6e-8 * 127 / float(widest.min()))
    torch.testing.assert_close(stored.scale.float() * 127, widest, rtol=tolerance, atol=0)
    assert int(stored.states.min()) >= 1


def test_a_token_does_not_depend_on_others_and_comes_back_the_same() -> None:
    states = torch.randn(6, 32)
    states[2] = 0
    stored, alone = quantize_tokens(states), quantize_tokens(states[4])
    assert torch.equal(stored.states[4], alone.states)
    assert not dequantize_tokens(stored)[2].any()
    again = quantize_tokens(dequantize_tokens(stored))
    assert torch.equal(again.states, stored.states)


def test_numbers_that_are_not_finite_show_in_the_scale() -> None:
    states = torch.ones(3, 4)
    states[0, 1], states[1, 2] = float("nan"), float("inf")
    scale = quantize_tokens(states).scale
    assert scale is not None
    assert scale.isfinite().tolist() == [False, False, True]


def test_float16_comes_back_unchanged() -> None:
    states = torch.randn(3, 4).half()
    assert torch.equal(dequantize_tokens(StoredStates(states)), states.float())
