"""How fast this machine encodes, loads, trains and samples a run's own models, and how long the run
would take.

All on made-up data, in a scratch folder: nothing of the run is read but its encoders and its URL
table's length. Knows the stages' inner parts, but starts none of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_catalog.url_table.table import count_rows
from pipeline.bench.measure import (
    Speed,
    forget_peak,
    largest_batch,
    matrix_product,
    measure,
    measure_in_turns,
    memory,
    synchronize,
)
from pipeline.bench.parts import Part
from pipeline.bench.synthetic_data import (
    LONGEST_CAPTION,
    soft_images,
    write_encodings,
    write_image_shard,
)
from pipeline.compute.devices import choose_device, has_bf16
from pipeline.config.run import RunConfig
from pipeline.dataset.batch_order import batch_numbers
from pipeline.dataset.encoded_dataset import Batch, open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.encode.shard_encoder import ShardEncoder
from pipeline.train.loop import initial_state, train_step
from tld_model.denoiser import Denoiser
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels, sample

_LEAST_BATCH = 8  # of training on a CPU, where a large one takes minutes a step
_ENCODE_S = 2.0  # of the bare encoders in one round
_TOKENS = (
    LONGEST_CAPTION  # of every text: batches are padded to the longest caption of the data set
)


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a part was found to do: images a second, and what else was seen."""

    speeds: dict[str, Speed]
    details: dict[str, Any] = field(default_factory=dict)


def bench(
    config: RunConfig, parts: Sequence[Part], pairs: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Measure these parts in turn, the loader on so many pairs; figures for people and programs.
    Raises NoRoom."""
    measures: dict[Part, Callable[[Path], _Figures]] = {
        "encode": lambda scratch: _encode(config, scratch),
        "load": lambda scratch: _load(config, scratch, pairs),
        "train": lambda _: _train(config),
        "denoise": lambda _: _denoise(config),
        "decode": lambda _: _decode(config),
    }
    speeds: dict[str, Speed] = {}
    details: dict[str, Any] = {}
    for part in parts:
        report(f"measuring {part} …")
        with tempfile.TemporaryDirectory(prefix="tld-bench-") as scratch:
            measured = measures[part](Path(scratch))
        speeds, details = speeds | measured.speeds, details | measured.details
    per_s = {name: speed.median for name, speed in speeds.items()}
    if "denoise" in per_s and "decode" in per_s:
        per_s["sample"] = 1 / (1 / per_s["denoise"] + 1 / per_s["decode"])
        details["sample_images_per_s"] = round(per_s["sample"], 2)
    if "load" in per_s and "train" in per_s:
        details["load_over_train"] = round(per_s["load"] / per_s["train"], 1)
    return {
        "machine": _machine(choose_device(config.train.device)),
        "images_per_s": {name: _figures(speed) for name, speed in speeds.items()},
        **details,
        "projected_hours": _projected_hours(config, per_s),
    }


def _projected_hours(config: RunConfig, per_s: dict[str, float]) -> dict[str, float]:
    """Of those stages whose speed is known."""
    counts: dict[str, Callable[[], int]] = {
        "encode": lambda: min(
            count_rows(config.download.urls, config.download.columns),
            config.download.limit or 2**63,
        ),
        "train": lambda: config.train.steps * config.train.batch_size,
        "sample": lambda: config.evaluate.prompts,
    }
    return {
        name: round(count() / per_s[name] / 3600, 3)
        for name, count in counts.items()
        if name in per_s
    }


def _encode(config: RunConfig, scratch: Path) -> _Figures:
    """A shard from tar to Parquet and NPZ, and beside it the same encoders on ready tensors, in
    turns."""
    encoder = ShardEncoder(scratch, config.encode, scratch)
    edge, batch_size = config.download.image_size, config.encode.batch_size
    images = soft_images(batch_size, edge)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # laid out as the stage lays them out
    captions = [f"picture number {number} of a made-up set" for number in range(batch_size)]
    tokens = encoder.clip.tokenize(captions)

    def bare(batches: int) -> int:
        for _ in range(batches):
            outputs = (
                encoder.codec.encode(pixels),
                encoder.clip.encode_tokens(tokens),
                encoder.clip.encode_images(pixels),
            )
        for tensor in outputs:
            tensor.cpu()
        return batches * batch_size

    batches = max(
        2, round(measure(lambda: bare(1)).median * _ENCODE_S / batch_size)
    )  # of one round
    numbered = [
        f"picture number {number} of a made-up set" for number in range(batches * batch_size)
    ]
    write_image_shard(scratch / "00000.tar", images, numbered, config.download.image_format)
    speeds = measure_in_turns(
        {"bare_encoders": lambda: bare(batches), "encode": lambda: encoder("00000").rows}
    )
    ratio = speeds["encode"].median / speeds["bare_encoders"].median
    return _Figures(speeds, {"encode_over_bare_encoders": round(ratio, 3)})


def _load(config: RunConfig, scratch: Path, pairs: int) -> _Figures:
    """The loader alone, as the training uses it: shuffled batches from memory-mapped shards."""
    device = choose_device(config.train.device)
    encodings = write_encodings(scratch, pairs, config.model)
    before = memory()
    forget_peak()
    started = time.perf_counter()
    source, split = (
        open_dataset(encodings, config.model.text),
        split_pairs(encodings, config.train.held_out_fraction),
    )
    batches = batch_numbers(split.train, config.train.batch_size, config.train.seed, first_step=0)
    source.batch(next(batches), device)
    start_s = time.perf_counter() - started

    def take() -> int:
        for numbers in islice(batches, 10):
            source.batch(numbers, device)
        synchronize(device)
        return 10 * config.train.batch_size

    speed, after = measure(take), memory()
    grown = {
        "own": after.own - before.own,
        "mapped": after.mapped - before.mapped,
        "peak": after.peak - before.own - before.mapped,
    }
    figures = {
        "pairs": pairs,
        "start_s": round(start_s, 2),
        "memory_mib": {k: _mib(v) for k, v in grown.items()},
    }
    return _Figures({"load": speed}, {"loader": figures})


def _train(config: RunConfig) -> _Figures:
    """Training steps, and in turns with them the fastest matrix products of this device."""
    device = choose_device(config.train.device)
    before = memory()
    forget_peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    state = initial_state(config.train, config.model, device)
    if config.train.compile:
        state.denoiser.compile_blocks()

    def steps_of(count: int) -> Callable[[], int]:
        batch = _random_batch(config, count)

        def step() -> int:
            train_step(state, batch, config.train, device).loss.item()
            return count

        return step

    size = config.train.batch_size
    if not device.startswith("cuda"):
        size = largest_batch(steps_of, size, _LEAST_BATCH)
    peaks = {name: matrix_product(device, dtype) for name, dtype in _arithmetic(device).items()}
    speeds = measure_in_turns({"train": steps_of(size), **peaks})
    used = "bf16" if "bf16" in peaks and config.train.precision != "fp32" else "fp32"
    operations = 3 * _forward_operations(config)  # the backward pass multiplies twice as much
    figures = {
        "batch_size": size,
        "configured_batch_size": config.train.batch_size,
        "gflop_per_image": round(operations / 1e9, 2),
        "peak_gflop_per_s": {name: round(speeds[name].fastest / 1e9) for name in peaks},
        "arithmetic": used,
        "flop_utilisation": round(speeds["train"].median * operations / speeds[used].median, 3),
        "memory_mib": _mib(memory().peak - before.own - before.mapped),
    }
    if device.startswith("cuda"):
        figures["device_memory_mib"] = _mib(torch.cuda.max_memory_allocated(device))
    return _Figures({"train": speeds["train"]}, {"train": figures})


def _forward_operations(config: RunConfig) -> int:
    """Floating-point operations of the forward pass for one image: all matrix products, attention's
    too, and convolutions, as torch counts them, two for each multiply-add; what works number by
    number is not counted."""
    batch = _random_batch(config, 1)
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # a fused kernel is not counted
        Denoiser(config.model)(batch.latents, torch.full((1,), 0.5), batch.text)
    return int(counter.get_total_flops())


def _arithmetic(device: str) -> dict[str, torch.dtype]:
    return {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_bf16(device) else {})


def _denoise(config: RunConfig) -> _Figures:
    """The denoiser's part of a sample: all its steps, with guidance."""
    device = choose_device(config.evaluate.device)
    denoiser = Denoiser(config.model).to(device).eval()
    denoise = guided(denoiser, config.evaluate.guidance, config.evaluate.guidance_interval)
    levels = noise_levels(config.evaluate.steps)

    def draw_of(count: int) -> Callable[[], int]:
        batch = _random_batch(config, count)
        noise, text = batch.latents.to(device), batch.text.to(device)
        return lambda: len(sample(config.evaluate.solver, denoise, noise, text, levels).cpu())

    size = largest_batch(draw_of, config.evaluate.batch_size)
    return _Figures({"denoise": measure(draw_of(size))}, {"denoise": {"batch_size": size}})


def _decode(config: RunConfig) -> _Figures:
    """The decoder's part of a sample."""
    codec = load_image_codec(config.encode.vae, choose_device(config.evaluate.device))
    batch_of = largest_batch(
        lambda count: _decoding(config, codec, count), config.evaluate.batch_size
    )
    return _Figures(
        {"decode": measure(_decoding(config, codec, batch_of))},
        {"decode": {"batch_size": batch_of}},
    )


def _decoding(config: RunConfig, codec: ImageCodec, count: int) -> Callable[[], int]:
    latents = _random_batch(config, count).latents
    return lambda: len(codec.decode(latents).cpu())


def _random_batch(config: RunConfig, count: int) -> Batch:
    model = config.model
    latents = torch.randn(count, model.latent_channels, model.latent_size, model.latent_size)
    text_shape = (
        (count, model.text_dim) if model.text == "pooled" else (count, _TOKENS, model.text_dim)
    )
    return Batch(latents, torch.randn(text_shape))


def _machine(device: str) -> str:
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else torch.cpu.get_capabilities().get("cpu_name", "CPU")
    )
    arithmetic = "bf16" if has_bf16(device) else "fp32"
    return f"{device}: {name}, {torch.get_num_threads()} threads, {arithmetic}, torch {torch.__version__}"


def _figures(speed: Speed) -> dict[str, float]:
    return {name: round(getattr(speed, name), 2) for name in ("median", "slowest", "fastest")}


def _mib(count: int) -> int:
    return round(count / 2**20)
