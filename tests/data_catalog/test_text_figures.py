"""The error of token states over several shards."""

from __future__ import annotations

import pytest

from data_catalog.text_figures import TokenSums, token_statistics


def test_shards_count_by_their_tokens() -> None:
    shards = [
        TokenSums(tokens=3, squared_error=0.03, squared_deviation=3 * 4.0),
        TokenSums(tokens=1, squared_error=0.05, squared_deviation=8.0),
    ]
    of_all = token_statistics("uint8", shards)
    assert of_all
    assert of_all.rmse == pytest.approx(0.02**0.5)
    assert of_all.std == pytest.approx(5**0.5)
    assert of_all.rmse_sigma == pytest.approx((0.02 / 5) ** 0.5)
    assert token_statistics("uint8", []) is None
