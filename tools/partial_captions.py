"""Partial captions for the small CLIP: their embeddings are means of those of full captions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES, Description


def embed_captions(clip: CLIPModel, tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Embeddings as they come from the text half, without normalization, float32 [n, d]."""
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    embeddings: Tensor = clip.get_text_features(**tokens).pooler_output
    return embeddings


@torch.no_grad()
def mean_embeddings(clip: CLIPModel, tokenizer: CLIPTokenizer) -> dict[str, Tensor]:
    """Every partial caption, with the mean embedding of the full captions that it stands for,
    float32 [d]."""
    combinations, partial = shapes.combinations(), _partial_descriptions()
    full = embed_captions(clip, tokenizer, [attributes.caption for attributes in combinations])
    says, shows = _values(partial)[:, None], _values(combinations)
    fits = torch.from_numpy(((says == "") | (says == shows)).all(-1)).float()  # [partial, full]
    means = fits @ full / fits.sum(1, keepdim=True)
    return {description.caption: mean for description, mean in zip(partial, means, strict=True)}


def _values(named: Iterable[Description | shapes.Attributes]) -> NDArray[np.str_]:
    """The five attributes of each, "" for one that is left open, [n, 5]."""
    return np.array([[getattr(each, name) or "" for name in ATTRIBUTE_NAMES] for each in named])


def _partial_descriptions() -> list[Description]:
    colours = (None, *shapes.COLOURS)
    values = (None, *shapes.SIZES), colours, (None, *shapes.SHAPES), (None, *shapes.POSITIONS)
    every = (Description(*chosen) for chosen in itertools.product(*values, colours))
    possible = (d for d in every if d.colour is None or d.colour != d.background)
    return [description for description in possible if description.left_open]
