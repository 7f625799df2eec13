"""Several captions a pair: one is drawn each epoch, as the weights say."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.caption_sampling import (
    CaptionColumnError,
    CaptionSampler,
    caption_sampler,
    wrong_weights,
)

COLUMNS = ("caption", "alt", "recaptioned")


def drawn(
    draw: CaptionSampler, columns: list[int], numbers: np.ndarray, epoch: int = 0
) -> np.ndarray:
    """Places of the captions drawn for pairs that all have captions of these columns."""
    rows = np.tile(columns, (len(numbers), 1))
    return draw.choose(rows, draw.uniform(numbers, np.full(len(numbers), epoch)))


def test_captions_come_as_often_as_their_weights_say() -> None:
    draw = caption_sampler(COLUMNS, {"alt": 0, "recaptioned": 3}, seed=5)
    assert draw
    numbers = np.arange(40_000)
    shares = np.bincount(drawn(draw, [0, 1, 2], numbers), minlength=3) / len(numbers)
    np.testing.assert_allclose(shares, [0.25, 0, 0.75], atol=0.01)
    without_main_weight = caption_sampler(COLUMNS, {"caption": 0}, seed=5)
    assert without_main_weight
    shares = np.bincount(drawn(without_main_weight, [0, 2, -1], numbers), minlength=3) / len(
        numbers
    )
    assert list(shares) == [0, 1, 0], "the column -1 is none"
    assert not drawn(without_main_weight, [0, -1, -1], numbers).any(), (
        "alone it is shown, whatever it weighs"
    )


def test_a_draw_follows_from_seed_epoch_and_pair_alone_and_is_another_with_each() -> None:
    draw = caption_sampler(COLUMNS, {}, seed=1)
    other = caption_sampler(COLUMNS, {}, seed=2)
    assert draw
    assert other
    numbers = np.arange(3000)
    first = drawn(draw, [0, 1, 2], numbers)
    np.testing.assert_array_equal(drawn(draw, [0, 1, 2], numbers[::-1])[::-1], first)
    for different in (
        drawn(draw, [0, 1, 2], numbers, epoch=1),
        drawn(other, [0, 1, 2], numbers),
        np.roll(first, 1),
    ):
        assert 0.28 < (different == first).mean() < 0.39, (
            "independent: a third is the same by chance"
        )


def test_nothing_is_drawn_where_there_is_one_caption_and_wrong_weights_are_told() -> None:
    assert caption_sampler(("caption",), {"caption": 2}, seed=0) is None
    assert wrong_weights([COLUMNS], {"alt": 2.0}) is None
    assert wrong_weights([COLUMNS, ("caption",)], {"alt": 2.0}) is None
    assert wrong_weights([COLUMNS, ("other",)], {"other": 0}) == (
        "all captions of other have weight 0"
    )
    with pytest.raises(
        CaptionColumnError, match=r"no such caption column: al; the captions come from caption, alt"
    ):
        caption_sampler(COLUMNS, {"al": 2}, seed=0)
    with pytest.raises(CaptionColumnError, match="all captions have weight 0"):
        caption_sampler(COLUMNS, dict.fromkeys(COLUMNS, 0), seed=0)
