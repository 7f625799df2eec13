"""Random encodings in a temporary folder, and the training loop over them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.figures import EncoderNames, EncodingsFigures
from data_catalog.storage.manifest import Manifest, write_manifest
from pipeline.bench.synthetic_data import write_encodings
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import split_pairs
from pipeline.train.loop import TrainState, TrainStep, train_steps


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that the end of the block deletes."""
    with tempfile.TemporaryDirectory(prefix="tld-gpu-check-") as scratch:
        yield Path(scratch)


def make_encodings(folder: Path, config: RunConfig, pairs: int) -> Manifest:
    """Random encodings with a manifest, as of the encoders that ship with tld."""
    folder.mkdir()
    encodings = write_encodings(folder, pairs, config.model)
    encoders = EncoderNames(vae="shapes-vae", clip="shapes-clip", vae_identity="", clip_identity="")
    values = EncodingsFigures.of(encodings).model_copy(update={"encoders": encoders})
    encodings = encodings.model_copy(update={"figures": values.model_dump(mode="json")})
    write_manifest(encodings)
    return encodings


def training_loop(
    encodings: Manifest, state: TrainState, config: RunConfig, device: str
) -> Iterator[TrainStep]:
    """The training loop over encodings, from the state's step on."""
    pairs = open_dataset(encodings, config.model.text)
    split = split_pairs(encodings, config.train.held_out_fraction)
    return train_steps(state, TrainingPairs.alone(pairs, split.train), config.train, device)
