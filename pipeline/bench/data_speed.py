"""Speed of the encoding stage and of the data loader, on synthetic data."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import torch

from pipeline.bench.measure import (
    Measurement,
    forget_peak,
    measure,
    measure_in_turns,
    memory,
    mib,
)
from pipeline.bench.synthetic_data import soft_images, write_encodings, write_image_shard
from pipeline.compute.devices import choose_device, wait_for
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import split_pairs
from pipeline.encode.shard_encoder import ShardEncoder

_ENCODE_S = 2.0  # of the bare encoders in one round


def measure_encoding(config: RunConfig, scratch: Path) -> Measurement:
    """Encode a shard from tar to Parquet and NPZ and, in turns with it, run the same encoders on
    tensors that are already in memory."""
    encoder = ShardEncoder(scratch, config.encode, scratch)
    edge, batch_size = config.download.image_size, config.encode.batch_size
    images = soft_images(batch_size, edge)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # with the strides that the stage uses
    captions = [f"picture number {number} of a made-up set" for number in range(batch_size)]
    tokens = encoder.captions.tokenize(captions)

    def bare(batches: int) -> int:
        for _ in range(batches):
            outputs = [encoder.latents.codec.encode(pixels), encoder.captions(tokens).pooled]
            if encoder.clip:
                outputs.append(encoder.clip.encode_images(pixels))
        for tensor in outputs:
            tensor.cpu()
        return batches * batch_size

    batches = max(2, round(measure(lambda: bare(1)).median * _ENCODE_S / batch_size))
    numbered = [
        f"picture number {number} of a made-up set" for number in range(batches * batch_size)
    ]
    write_image_shard(scratch / "00000.tar", images, numbered, config.download.image_format)
    speeds = measure_in_turns(
        {"bare_encoders": lambda: bare(batches), "encode": lambda: encoder("00000").rows}
    )
    ratio = speeds["encode"].median / speeds["bare_encoders"].median
    return Measurement(speeds, {"encode_over_bare_encoders": round(ratio, 3)})


def measure_loading(config: RunConfig, scratch: Path, pairs: int) -> Measurement:
    """The data loader alone, as in training: shuffled batches from memory-mapped shards."""
    device = choose_device(config.train.device)
    encodings = write_encodings(scratch, pairs, config.model)
    before = memory()
    forget_peak()
    started = time.perf_counter()
    dataset = open_dataset(encodings, config.model.text)
    split = split_pairs(encodings, config.train.held_out_fraction)
    pairs_to_train = TrainingPairs.alone(dataset, split.train)
    batches = pairs_to_train.batches(config.train.batch_size, config.train.seed, first_step=0)
    dataset.batch(next(batches).numbers, device)
    start_s = time.perf_counter() - started

    def load_batches() -> int:
        for numbers, _ in islice(batches, 10):
            dataset.batch(numbers, device)
        wait_for(device)
        return 10 * config.train.batch_size

    speed, after = measure(load_batches), memory()
    grown = {
        "own": after.own - before.own,
        "mapped": after.mapped - before.mapped,
        "peak": after.peak - before.own - before.mapped,
    }
    figures = {
        "pairs": pairs,
        "start_s": round(start_s, 2),
        "memory_mib": {k: mib(v) for k, v in grown.items()},
    }
    return Measurement({"load": speed}, {"loader": figures})
