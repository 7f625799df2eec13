from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.generate.interpolate import interpolate, slerp
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings

SAMPLING = SamplingSettings(steps=3, guidance=2.0)
ENDS = ("a star", "a large blue circle in the top left on a white background")


@pytest.mark.parametrize(("text", "text_dim"), [("pooled", 64), ("tokens", 128)])
def test_it_goes_from_one_picture_to_the_other(text: str, text_dim: int) -> None:
    generate = untrained_generator(text=text, text_dim=text_dim)
    frames = interpolate(generate, ENDS, (3, 8), 4, SAMPLING).astype(int)
    ends = [
        generate([caption], [seed], SAMPLING)[0] for caption, seed in zip(ENDS, (3, 8), strict=True)
    ]
    assert frames.shape == (4, 64, 64, 3)
    assert np.abs(frames[0] - ends[0]).max() <= 1
    assert np.abs(frames[-1] - ends[1]).max() <= 1
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    assert all(0 < step < np.abs(frames[0] - frames[-1]).mean() for step in steps)


def test_of_one_caption_only_the_seed_moves() -> None:
    generate = untrained_generator()
    frames = interpolate(generate, (ENDS[0], ENDS[0]), (3, 8), 3, SAMPLING)
    assert (frames[0] != frames[2]).any()
    still = interpolate(generate, (ENDS[0], ENDS[0]), (3, 3), 3, SAMPLING)
    assert np.abs(still.astype(int) - still[:1]).max() <= 1


def test_slerp_keeps_the_spread_and_turns_evenly() -> None:
    start, end = torch.randn(
        2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    end = end * start.norm() / end.norm()
    between = slerp(start, end, torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(between[0], start[0])
    torch.testing.assert_close(between[-1], end[0])
    torch.testing.assert_close(between.flatten(1).norm(dim=1), start.norm().expand(5))
    cosines = [
        torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairwise(between)
    ]
    quarter = torch.cosine_similarity(start.flatten(), end.flatten(), dim=0).acos() / 4
    assert all(math.isclose(cosine.acos(), quarter, rel_tol=1e-6) for cosine in cosines)
    torch.testing.assert_close(slerp(start, start, torch.tensor([0.3], dtype=torch.float64)), start)
