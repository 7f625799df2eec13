"""Standard deviations as uint8: within 2.8 % in the range, 0 below it, its end above it."""

from __future__ import annotations

import math

import torch

from tld_model.quantize_spread import dequantize_spread, quantize_spread


def test_deviations_come_back_within_half_a_level() -> None:
    std = torch.logspace(math.log10(math.exp(-11.99)), math.log10(math.exp(1.99)), 5000)
    back = dequantize_spread(quantize_spread(std))
    assert ((back - std).abs() / std).max().item() < 0.028
    assert len(quantize_spread(std).unique()) == 255


def test_the_stored_numbers_are_those_that_the_reference_describes() -> None:
    stored = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    expected = [0, *(math.exp((number - 1) * 14 / 254 - 12) for number in (1, 128, 255))]
    torch.testing.assert_close(dequantize_spread(stored), torch.tensor(expected))
    assert torch.equal(quantize_spread(torch.tensor(expected)), stored)


def test_beyond_the_range_are_zero_and_its_end() -> None:
    stored = quantize_spread(torch.tensor([0.0, 1e-9, 1e6]))
    assert stored.tolist() == [0, 0, 255]
