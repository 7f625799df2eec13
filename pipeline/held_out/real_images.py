"""The images of an encodings output after the VAE's round trip, their features and captions.

p pairs   d feature width
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.encodings import read_rows
from data_catalog.figures import EncodingsFigures
from data_catalog.images import Images
from data_catalog.storage.digests import digest_of
from data_catalog.storage.files import make_folder, replacing
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.dataset.encoded_dataset import EncodedDataset
from pipeline.held_out.samples import Models, decode_held_out, select_held_out
from pipeline.scoring.image_features import ImageFeatures
from pipeline.stages.contract import ShowsProgress

_EMBEDDED = 1  # increase by hand when decoding or embedding changes
Numbers = NDArray[np.int64]  # of pairs, in the order of EncodedDataset
FeaturesOf = Callable[[Numbers], Tensor]  # of the images of pairs [p] -> float32 [p, d]


@dataclass(frozen=True, slots=True)
class RealImages:
    """Images of pairs by their numbers, decoded a batch at a time."""

    models: Models
    pairs: EncodedDataset
    encodings: Manifest
    batch_size: int
    workspace: Workspace

    @property
    def network(self) -> ImageFeatures:
        """The first network of evaluate.features, which there must be."""
        return self.models.features[0]

    def images(self, numbers: Numbers) -> Images:
        """The images of a few pairs: uint8 [p, h, w, 3]."""
        chosen = select_held_out(self.pairs, numbers, [""] * len(numbers))
        return decode_held_out(self.models, chosen, list(range(len(numbers))), self.batch_size)

    def features(self, numbers: Numbers, track: ShowsProgress) -> Tensor:
        """The features of the images of pairs: float32 [p, d].

        They are cached in the workspace, because the same encodings always give the same ones.
        """
        encoders = EncodingsFigures.of(self.encodings).encoders.model_dump()
        identity = [_EMBEDDED, self.encodings.digest, encoders, self.network.digest]
        name = digest_of([*identity, numbers.tolist()])[:12]
        path = self.workspace.references / f"{name}.features.npy"
        if (known := _load(path, len(numbers))) is not None:
            return known
        features = torch.cat(list(self._embedded(numbers, track)))
        make_folder(path.parent)
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, features.numpy())
        return features

    def captions(self, numbers: Numbers) -> list[str]:
        """The main captions of a few pairs."""
        filled = [shard.name for shard in self.encodings.shards if shard.rows]
        shard_of = np.searchsorted(self.pairs.starts, numbers, side="right") - 1
        texts = {
            shard: read_rows(self.encodings.folder, filled[shard], ["caption"])["caption"]
            for shard in np.unique(shard_of).tolist()
        }
        rows = zip(shard_of.tolist(), (numbers - self.pairs.starts[shard_of]).tolist(), strict=True)
        return [texts[shard][row].as_py() for shard, row in rows]

    def _embedded(self, numbers: Numbers, track: ShowsProgress) -> Iterator[Tensor]:
        for start in range(0, len(numbers), self.batch_size):
            part = numbers[start : start + self.batch_size]
            yield self.network.embed(self.images(part), self.batch_size)
            track.progress(start + len(part), len(numbers), "real images decoded and embedded")


def _load(path: Path, rows: int) -> Tensor | None:
    """Cached features, or None if there are none or they are damaged."""
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = features.ndim == 2 and len(features) == rows and features.dtype == np.float32
    return torch.from_numpy(features) if fits else None
