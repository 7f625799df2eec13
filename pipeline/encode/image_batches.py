"""Batches for the encoders, read from tar shards by threads.

Threads pay because reading, decoding and tokenizing release the GIL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_catalog.images import PackedPair, read_packed_pairs
from pipeline.encode.caption_encoder import CaptionTokens

Item = TypeVar("Item")
Result = TypeVar("Result")
Tokenize = Callable[[Sequence[str]], CaptionTokens]

# What the table of an encoded shard says of each pair, by attributes of ImagePair.
DESCRIPTION = (
    "key",
    "url",
    "caption",
    "split",
    "original_width",
    "original_height",
    "sha256",
    "more_captions",
    "kept_columns",
)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch of b pairs of a shard, as they are in the tar."""

    pairs: list[PackedPair]
    # For each pair: number of a caption column (0 is the main one) -> number of the caption among
    # the distinct captions of the shard, in order of appearance.
    captions: list[dict[int, int]]
    new_captions: list[str]  # that no earlier batch had


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """The same pairs as inputs of the encoders."""

    pixels: Tensor  # uint8 [b, 3, h, w]
    rows: dict[str, list[Any]]  # column -> b values
    captions: list[dict[int, int]]  # as in PackedBatch
    new_tokens: CaptionTokens | None  # of the new captions


def packed_batches(
    tar: Path, size: int, predicate: Callable[[PackedPair], bool]
) -> Iterator[PackedBatch]:
    """The pairs of a shard for which `predicate` is true, in the order of the tar. Raises
    ManifestError if the tar is damaged."""
    chosen = filter(predicate, read_packed_pairs(tar))
    seen: dict[str, int] = {}
    while pairs := list(islice(chosen, size)):
        captions = [pair.captions for pair in pairs]
        new = [
            text
            for text in dict.fromkeys(text for texts in captions for text in texts.values())
            if text not in seen
        ]
        seen |= {text: len(seen) + number for number, text in enumerate(new)}
        numbers = [{column: seen[text] for column, text in texts.items()} for texts in captions]
        yield PackedBatch(pairs, numbers, new)


def unpack(
    packed: PackedBatch, tokenize: Tokenize, edge: int | None = None, *, pin: bool = False
) -> ImageBatch:
    """Decode and tokenize a batch of images with this edge. Pinned memory can be copied to a GPU
    without interrupting its work."""
    pairs = [pair.unpack(edge) for pair in packed.pairs]
    rows = {name: [getattr(pair, name) for pair in pairs] for name in DESCRIPTION}
    rows["height"], rows["width"] = ([pair.image.shape[axis] for pair in pairs] for axis in (0, 1))
    pixels = torch.from_numpy(np.stack([pair.image for pair in pairs]))  # [b, h, w, 3]
    tokens = tokenize(packed.new_captions) if packed.new_captions else None
    if pin:
        pixels = pixels.pin_memory()
        tokens = tokens.pinned() if tokens else None
    return ImageBatch(pixels.permute(0, 3, 1, 2), rows, packed.captions, tokens)


def in_lanes(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Call `work` on each item in this many threads; yield the results in the order of the items.

    At most `threads` + 1 items are in progress at a time. Exceptions of `work` are raised here.
    """
    with ThreadPoolExecutor(threads, "lane") as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
