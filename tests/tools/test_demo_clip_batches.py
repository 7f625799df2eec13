"""The contrastive loss of the small CLIP: captions that are true of several images of a batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from data_catalog.shapes.dataset import Attributes, Drawing
from tools.demo_clip_batches import captions_true_of, contrastive_loss

RED = Drawing(Attributes("small", "red", "star", "center", "blue"), 0)
GREEN = Drawing(Attributes("large", "green", "star", "center", "blue"), 1)
CROSS = Drawing(Attributes("small", "red", "cross", "top left", "white"), 2)


def test_a_caption_is_true_of_every_image_that_it_does_not_contradict() -> None:
    captions = ["a star on a blue background", GREEN.attributes.caption, "a small shape", "a shape"]
    assert captions_true_of(captions, [RED, GREEN, CROSS]).tolist() == [
        [True, True, False],
        [False, True, False],
        [True, False, True],
        [True, True, True],
    ]


def test_the_loss_ignores_other_images_that_a_caption_is_true_of() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    is_true = captions_true_of(["a star", GREEN.attributes.caption, "a cross"], [RED, GREEN, CROSS])
    assert is_true[0, 1]
    changed = logits.clone()
    changed[0, 1] += 5
    assert contrastive_loss(changed, is_true) == contrastive_loss(logits, is_true)
    changed[0, 2] += 5
    assert contrastive_loss(changed, is_true) > contrastive_loss(logits, is_true)


def test_of_full_captions_it_is_the_loss_of_clip() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert contrastive_loss(logits, torch.eye(3, dtype=torch.bool)).item() == pytest.approx(
        expected.item()
    )
