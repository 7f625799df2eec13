"""The images of stage 1 in memory, split as the run splits them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data_catalog.excluded_rows import dropped_keys
from data_catalog.images import PackedPair, UnreadableImage, read_packed_pairs
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.dataset.split import hashes_or_split, held_out_rows
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs


class NoImages(ValueError):
    """There are no images of a run to train on, or none to measure with."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class ImageSplit:
    """Images, and which of them the run holds out."""

    images: Tensor  # uint8 [n, 3, h, w], to train on and held out
    train: Tensor  # indices of images, int64 [m]
    held_out: Tensor  # uint8 [n - m, 3, h, w]


def read_images(config: RunConfig, most_bytes: int) -> ImageSplit:
    """Read the images of a run's finished download, a random part if all of them take more memory.
    Raises NoImages if there is no such download, or nothing on one side of the split."""
    manifest = stage_statuses(RunInputs(config))["download"].manifest
    if manifest is None:
        raise NoImages(
            f"run {config.name!r} in {config.root} has no finished download with these settings; "
            "make it first: tld run CONFIG --until download"
        )
    edge, rows = config.download.image_size, sum(shard.rows for shard in manifest.shards)
    chosen = np.zeros(rows, np.bool_)
    chosen[np.random.default_rng(0).permutation(rows)[: most_bytes // (3 * edge**2)]] = True
    pixels = np.empty((chosen.sum(), edge, edge, 3), np.uint8)
    keys, splits = list[str](), list[str]()
    for packed in compress(_packed_pairs(manifest), chosen.tolist()):
        try:
            pair = packed.unpack(edge)
        except UnreadableImage:  # skipped, as in stage 2
            continue
        pixels[len(keys)] = pair.image
        keys.append(pair.key)
        splits.append(pair.split)
    if not keys:
        raise NoImages(f"no image of {manifest.folder} can be read")
    rows_of_split = hashes_or_split(pa.table({"key": keys, "split": splits}))
    held_out = held_out_rows(*rows_of_split, config.train.held_out_fraction)
    if held_out.all() or not held_out.any():
        side = "held out" if held_out.all() else "to train on"
        raise NoImages(
            f"all {len(keys)} images are {side}; change train.held_out_fraction, now "
            f"{config.train.held_out_fraction:g}, or the column named by download.split_column"
        )
    images = torch.from_numpy(pixels[: len(keys)]).permute(0, 3, 1, 2)
    train = torch.from_numpy(np.flatnonzero(~held_out))
    return ImageSplit(images, train, images[torch.from_numpy(held_out)])


def _packed_pairs(manifest: Manifest) -> Iterator[PackedPair]:
    """The pairs that are not dropped, not yet decoded."""
    for shard in manifest.shards:
        dropped = dropped_keys(manifest.folder, shard.name)
        for packed in read_packed_pairs(ensure_local(manifest.folder / f"{shard.name}.tar")):
            if packed.key not in dropped:
                yield packed
