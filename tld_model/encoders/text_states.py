"""Captions => tokens => one vector per caption and one per token, with any text encoder.

Exported pipelines carry this module, so it imports nothing of the project.

b batch   l tokens   t width of a token   d width of a pooled embedding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# How one vector is made of a caption: CLIP's projection of its end token, the mean over all tokens
# (Sentence-BERT: Reimers and Gurevych, 2019), the first token (BERT's), or the last.
Pooling = Literal["projection", "mean", "first", "last"]


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """Everything that determines the embedding of a caption, but for the model and its tokenizer.

    Captions are padded on the right, and truncated there.
    """

    limit: int  # tokens of the longest caption, those for its start and end included
    pooling: Pooling
    normalize: bool = False  # pooled embeddings to length 1
    layer: int | None = None  # whose hidden states to take, from 1; None for the model's output
    template: str = "{}"  # the caption takes the place of {}
    end: int | None = None  # a token to append to captions that do not end with it


def tokenize_captions(
    tokenizer: Any, captions: Sequence[str], recipe: TextRecipe
) -> dict[str, Tensor]:
    """Token ids and their mask, int64 [b, l], padded to the longest of these captions."""
    texts = [recipe.template.replace("{}", caption) for caption in captions]
    room = recipe.limit - (recipe.end is not None)
    rows = tokenizer(texts, truncation=True, max_length=room)["input_ids"]
    end = [] if recipe.end is None else [recipe.end]
    rows = [row if end and row[-1:] == end else [*row, *end] for row in rows]
    padding = tokenizer.pad_token_id or 0  # the model sees none of it
    rows = [row or [padding] for row in rows]
    ids = torch.full((len(rows), max(map(len, rows))), padding)  # [b, l]
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def encode_captions(
    model: Any, tokens: Mapping[str, Tensor], recipe: TextRecipe
) -> tuple[Tensor, Tensor]:
    """Pooled embeddings, float32 [b, d], and token states, float32 [b, l, t], which are zero after
    the end of a caption."""
    inputs = {name: tensor.to(model.device, non_blocking=True) for name, tensor in tokens.items()}
    output = model(**inputs, output_hidden_states=recipe.layer is not None)
    states = (
        output.last_hidden_state if recipe.layer is None else output.hidden_states[recipe.layer]
    )
    states = states.float()  # [b, l, t]
    mask = tokens["attention_mask"].to(states.device, non_blocking=True)  # [b, l]
    if recipe.pooling == "projection":
        pooled = output.text_embeds.float()
    else:
        pooled = pool_states(states, mask, recipe.pooling)
    if recipe.normalize:
        pooled = F.normalize(pooled, dim=1)
    return pooled, states * mask[:, :, None]


def pool_states(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Token states [b, l, t] whose mask [b, l] is 1 -> [b, t]: their mean, first or last."""
    if pooling == "mean":
        weights = mask[:, :, None].to(states.dtype)  # [b, l, 1]
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    place = mask.sum(dim=1) - 1 if pooling == "last" else torch.zeros_like(mask[:, 0])  # [b]
    return states[torch.arange(len(states), device=states.device), place]
