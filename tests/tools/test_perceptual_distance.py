"""Tests of tools/perceptual_distance.py, with the real weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from data_catalog.shapes.dataset import Drawing, combinations
from tests.support.feature_networks import needs_efficientnet
from tools.perceptual_distance import perceptual_distance


def drawn() -> Tensor:
    """Eight drawings in [-1, 1]: [8, 3, 64, 64]."""
    images = [Drawing(combinations()[number * 150], seed=number).pixels() for number in range(8)]
    return (
        torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2) / 127.5 - 1
    )


@needs_efficientnet
def test_equal_images_have_no_distance_and_any_change_has_one() -> None:
    distance, images = perceptual_distance("cpu"), drawn()
    assert distance(images, images).item() == 0
    assert distance(images.flip(0), images) > distance(images.roll(1, -1), images) > 0


@needs_efficientnet
def test_blur_is_farther_than_a_shift_of_colour_of_the_same_error() -> None:
    distance, images = perceptual_distance("cpu"), drawn()
    blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    error = (blurred - images).square().mean().sqrt()
    assert distance(blurred, images) > 2 * distance(images + error, images)


@needs_efficientnet
def test_its_gradient_leads_back_to_the_image_and_leaves_the_network_alone() -> None:
    distance, images = perceptual_distance("cpu"), drawn()
    moved = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    moved.requires_grad_()
    before = distance(moved, images)
    (gradient,) = torch.autograd.grad(before, moved)
    step = moved - 0.05 * gradient / gradient.square().mean().sqrt()
    assert distance(step, images) < before
