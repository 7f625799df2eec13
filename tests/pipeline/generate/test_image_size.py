"""Sizes that a model can generate."""

from __future__ import annotations

from pipeline.generate.image_size import size_problem


def test_whole_tokens_up_to_a_limit_can_be_generated() -> None:
    assert size_problem((96, 64), 16) is None
    assert "nearest are 96x64 and 112x64" in str(size_problem((100, 64), 16))
    assert "the maximum is 16384" in str(size_problem((2048, 2064), 16))
