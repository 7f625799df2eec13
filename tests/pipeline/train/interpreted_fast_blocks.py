"""The comparison of both ways with the kernel itself, in Triton's interpreter.
`test_fast_blocks.py` runs these."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.train import TrainConfig
from pipeline.train import fast_blocks
from pipeline.train.fast_blocks import compare_ways, largest_difference
from tests.support.training import MODEL, SETTINGS
from tld_model import fused_depthwise


@pytest.fixture(autouse=True)
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_blocks, "_ROUNDS", 1)
    monkeypatch.setattr(fast_blocks, "_CALLS", 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_ways_are_measured_and_agree(precision: str) -> None:
    config = TrainConfig(**{**SETTINGS, "precision": precision})
    before = torch.random.get_rng_state()
    measured = compare_ways(config, MODEL, "cpu", 2)
    assert measured.layers_ms > 0
    assert measured.fused_ms > measured.layers_ms, "the interpreter is slow"
    if precision == "fp32":
        assert measured.difference < 1e-5
    else:
        assert 1e-4 < measured.difference < largest_difference(config, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_a_wrong_gradient_is_noticed(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    correct = fused_depthwise.depthwise_gelu

    def wrong(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rows: int) -> torch.Tensor:
        out = correct(x, weight, bias, rows)
        weight.register_hook(lambda gradient: gradient * factor)
        return out

    monkeypatch.setattr(fused_depthwise, "depthwise_gelu", wrong)
    config = TrainConfig(**SETTINGS)
    measured = compare_ways(config, MODEL, "cpu", 1)
    assert not measured.difference <= largest_difference(config, "cpu")
