"""Tar shards -> batches ready for the encoders, made in the background while these work.

Reading, decoding and tokenizing happen here, in threads: all three let other threads run. Knows nothing of
what the encoders make of a batch.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_catalog.images import ImagePair, PackedPair, read_packed_pairs

Item = TypeVar("Item")
Tokenize = Callable[[Sequence[str]], dict[str, Tensor]]
_BATCHES_AHEAD = 2
_MOST_DECODERS = 8  # threads of one worker

# What stands beside a pair in the table of an encoded shard.
DESCRIPTION = ("key", "url", "caption", "split", "original_width", "original_height", "sha256")


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Some pairs of a shard, b of them."""

    pixels: Tensor  # uint8 [b, 3, h, w]
    rows: dict[str, list[Any]]  # column -> b values
    captions: list[int]  # number of each pair's caption among the shard's different ones, in order of appearance
    new_tokens: dict[str, Tensor] | None  # of captions that no batch before had


def image_batches(
    tar: Path, size: int, wanted: Callable[[PackedPair], bool], tokenize: Tokenize, pin: bool = False
) -> Iterator[ImageBatch]:
    """The wanted pairs of a shard, no other is decoded; pinned, they reach a GPU without a halt of its work.
    Raises ManifestError where the tar is damaged."""
    chosen = filter(wanted, read_packed_pairs(tar))
    seen: dict[str, int] = {}
    with ThreadPoolExecutor(_decoders(), "decode") as pool:
        while packed := list(islice(chosen, size)):
            pairs = _unpacked(packed, pool)
            new = [caption for caption in dict.fromkeys(pair.caption for pair in pairs) if caption not in seen]
            seen |= {caption: len(seen) + number for number, caption in enumerate(new)}
            rows = {name: [getattr(pair, name) for pair in pairs] for name in DESCRIPTION}
            rows["height"], rows["width"] = ([pair.image.shape[axis] for pair in pairs] for axis in (0, 1))
            pixels = torch.from_numpy(np.stack([pair.image for pair in pairs]))  # [b, h, w, 3]
            tokens = tokenize(new) if new else None
            if pin:
                pixels = pixels.pin_memory()
                tokens = {name: tensor.pin_memory() for name, tensor in tokens.items()} if tokens else None
            yield ImageBatch(pixels.permute(0, 3, 1, 2), rows, [seen[pair.caption] for pair in pairs], tokens)


def _unpacked(packed: list[PackedPair], pool: ThreadPoolExecutor) -> list[ImagePair]:
    """Decoded by several threads where there are cores for them; else a pool only costs."""
    if _decoders() == 1:
        return [pair.unpack() for pair in packed]
    return list(pool.map(PackedPair.unpack, packed, chunksize=8))


def _decoders() -> int:
    """Threads that decode: one core is left to drive the encoders."""
    return max(1, min(_MOST_DECODERS, len(os.sched_getaffinity(0)) - 1))


@dataclass(frozen=True, slots=True)
class _Ready(Generic[Item]):
    item: Item


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def prefetched(items: Iterable[Item], ahead: int = _BATCHES_AHEAD) -> Iterator[Item]:
    """The same items in the same order, made by a thread that is at most `ahead` items in front. What goes
    wrong there is raised here; who stops early leaves no thread behind."""
    ready: queue.Queue[_Ready[Item] | _End] = queue.Queue(ahead)
    stop = threading.Event()

    def put(thing: _Ready[Item] | _End) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(thing, timeout=0.1)
                return

    def make() -> None:
        end = _End()
        try:
            for item in items:
                put(_Ready(item))
                if stop.is_set():
                    break
        except BaseException as error:
            end = _End(error)
        put(end)

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while isinstance(thing := ready.get(), _Ready):
            yield thing.item
        if thing.error is not None:
            raise thing.error
    finally:
        stop.set()
        thread.join()
