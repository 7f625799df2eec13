"""Batches and loss of the small CLIP: drawings that are hard to tell apart, and captions that are
true of several of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES, Description
from tools.demo_encoder_scores import normalized

VIEWS = 4  # drawings of a combination that captions are compared with


def contrastive_batches(batch_size: int, seed: int) -> Iterator[list[shapes.Drawing]]:
    """Batches in which half of the drawings differ from the other half in one attribute, which is
    the hard part of the task."""
    rng = np.random.default_rng(seed)
    pool = [attributes for attributes in shapes.combinations() if not attributes.held_out]
    known = set(pool)
    colours = list(shapes.COLOURS)
    values = {"size": list(shapes.SIZES), "colour": colours, "shape": list(shapes.SHAPES),
              "position": list(shapes.POSITIONS), "background": colours}  # fmt: skip
    while True:
        batch: dict[shapes.Attributes, None] = {}
        while len(batch) < batch_size:
            base = pool[rng.integers(len(pool))]
            name = "shape" if rng.random() < 0.25 else str(rng.choice(ATTRIBUTE_NAMES))
            other = replace(base, **{name: str(rng.choice(values[name]))})
            batch[base] = None
            if other in known:
                batch[other] = None
        chosen = list(batch)[:batch_size]
        yield [shapes.Drawing(attributes, seed=int(rng.integers(2**48))) for attributes in chosen]


@torch.no_grad()
def embed_drawings(clip: CLIPModel, seed: int) -> dict[shapes.Attributes, Tensor]:
    """Unit embeddings of a few drawings of each combination to train on, float [VIEWS, d]."""
    pool = [attributes for attributes in shapes.combinations() if not attributes.held_out]
    rng = np.random.default_rng((seed, 2))
    embedded = {}
    for attributes in pool:
        views = [shapes.Drawing(attributes, seed=int(rng.integers(2**48))) for _ in range(VIEWS)]
        features = clip.get_image_features(pixel_values=normalized(views)).pooler_output
        embedded[attributes] = F.normalize(features, dim=1)
    return embedded


def contrastive_loss(logits: Tensor, is_true: Tensor) -> Tensor:
    """The contrastive loss in both directions, without false negatives: a caption is not pushed
    away from another image that it is true of. logits and is_true are [n captions, n images]; pair
    i is on the diagonal."""
    others = is_true & ~torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(others, float("-inf"))
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def captions_true_of(captions: list[str], batch: list[shapes.Drawing]) -> Tensor:
    """Whether caption i is true of drawing j, bool [n, n]."""
    says = _values(filter(None, map(shapes.parse_caption, captions)))[:, None]
    shows = _values(drawing.attributes for drawing in batch)
    return torch.from_numpy(((says == "") | (says == shows)).all(-1))


def _values(things: Iterable[Description | shapes.Attributes]) -> NDArray[np.str_]:
    """The five attributes of each, "" for one that is left open, [n, 5]."""
    return np.array([[getattr(thing, name) or "" for name in ATTRIBUTE_NAMES] for thing in things])
