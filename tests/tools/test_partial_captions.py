"""Partial captions of the shipped encoders: their embeddings are means of those of full captions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from data_catalog.shapes.dataset import SHAPES, combinations
from tld_model.encoders.names import SHIPPED_ENCODERS
from tools.partial_captions import embed_captions, mean_embeddings


def load(name: str) -> tuple[CLIPModel, CLIPTokenizer]:
    folder = SHIPPED_ENCODERS[name]
    return CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def shipped() -> tuple[CLIPModel, CLIPTokenizer]:
    return load("shapes-clip")


@pytest.fixture(scope="module")
def means(shipped: tuple[CLIPModel, CLIPTokenizer]) -> dict[str, Tensor]:
    return mean_embeddings(*shipped)


@torch.no_grad()
def test_every_partial_caption_stands_for_the_full_captions_that_fit(
    shipped: tuple[CLIPModel, CLIPTokenizer], means: dict[str, Tensor]
) -> None:
    assert len(means) == 3 * 6 * 6 * 43 - len(combinations())
    full = [f"a small red {shape} in the center on a blue background" for shape in SHAPES]
    expected = embed_captions(*shipped, full).mean(0)
    given = means["a small red shape in the center on a blue background"]
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    everything = embed_captions(*shipped, [a.caption for a in combinations()]).mean(0)
    torch.testing.assert_close(means["a shape"], everything, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_encoder_that_was_taught_gives_partial_captions_these_embeddings(
    shipped: tuple[CLIPModel, CLIPTokenizer], means: dict[str, Tensor]
) -> None:
    captions = list(means)[::20]
    expected = torch.stack([means[caption] for caption in captions])
    taught = load("shapes-clip-short")
    given, untaught = (embed_captions(*clip, captions) for clip in (taught, shipped))
    spread = expected.var(0).sum()
    assert (given - expected).square().sum(1).mean() < 0.02 * spread
    assert (untaught - expected).square().sum(1).mean() > 0.2 * spread
    assert F.cosine_similarity(given, expected).quantile(0.05) > 0.95


@torch.no_grad()
def test_the_encoder_that_was_taught_embeds_images_as_before_and_full_captions_nearly(
    shipped: tuple[CLIPModel, CLIPTokenizer],
) -> None:
    before, after = shipped[0].state_dict(), load("shapes-clip-short")[0].state_dict()
    of_images = [name for name in before if name.startswith(("vision_model", "visual_projection"))]
    assert len(of_images) > 20
    assert all(torch.equal(before[name], after[name]) for name in of_images)
    full = [attributes.caption for attributes in combinations()]
    first, second = (embed_captions(*clip, full) for clip in (shipped, load("shapes-clip-short")))
    assert F.cosine_similarity(first, second).min() > 0.98
