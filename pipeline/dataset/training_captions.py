"""A few captions of training, as examples of what a model understands."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from data_catalog.encodings import read_rows
from data_catalog.storage.manifest import Manifest
from pipeline.dataset.split import hashes_or_split, held_out_rows

_LONGEST = 200  # characters: longer ones are no prompts that somebody would type


def training_captions(
    encodings: Manifest,
    held_out_fraction: float,
    count: int,
    is_example: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """Up to `count` different captions that training saw, drawn at random from the first shard that
    has any, always the same."""
    for name in (shard.name for shard in encodings.shards if shard.rows):
        rows = read_rows(encodings.folder, name, ["key", "split", "caption"])
        held_out = held_out_rows(*hashes_or_split(rows), held_out_fraction)
        captions = rows["caption"].to_pylist()
        usable = {
            caption.strip(): None
            for caption in (captions[i] for i in np.flatnonzero(~held_out))
            if caption and caption.strip() and len(caption) <= _LONGEST and is_example(caption)
        }
        if usable:
            return random.Random(0).sample(list(usable), min(count, len(usable)))
    return []
