"""The arithmetic of pooling."""

from __future__ import annotations

import torch

from tld_model.encoders.text_states import pool_states


def test_padding_counts_for_no_pooling() -> None:
    states = torch.tensor([[[1.0], [2.0], [6.0], [99.0]], [[5.0], [99.0], [99.0], [99.0]]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert pool_states(states, mask, "mean").flatten().tolist() == [3, 5]
    assert pool_states(states, mask, "first").flatten().tolist() == [1, 5]
    assert pool_states(states, mask, "last").flatten().tolist() == [6, 5]
