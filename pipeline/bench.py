"""How fast this machine encodes, trains and samples a run's own models, and how long the run would take.

All on made-up data, in a scratch folder: nothing of the run is read but its URL table's length. Knows the
stages' inner parts, but starts none of them.
"""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_catalog.urls import count_rows
from pipeline.batches import Batch
from pipeline.config import RunConfig
from pipeline.devices import choose_device, has_bf16
from pipeline.shard_encoder import ShardEncoder
from pipeline.train import initial_state, train_step
from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m

_ROUNDS = 3
_LEAST_S = 2.0  # of one round
_TOKENS = 77  # of the longest caption that CLIP takes


@dataclass(frozen=True, slots=True)
class Speed:
    """Images a second over some rounds."""

    median: float
    slowest: float
    fastest: float


def bench(config: RunConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure each part in turn; figures for people and programs."""
    speeds: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, measure in (("encode", _encode), ("train", _train), ("sample", _sample)):
            report(f"measuring {name} …")
            speeds |= measure(config, Path(scratch))
    rows = min(count_rows(config.download.urls, config.download.columns), config.download.limit or 2**63)
    pairs = {"encode": rows, "train": config.train.steps * config.train.batch_size, "sample": config.evaluate.prompts}
    return {
        "machine": _machine(choose_device(config.train.device)),
        "images_per_s": {name: _figures(speed) for name, speed in speeds.items()},
        "encode_over_bare_encoders": round(speeds["encode"].median / speeds["bare_encoders"].median, 3),
        "projected_hours": {name: round(count / speeds[name].median / 3600, 3) for name, count in pairs.items()},
    }


def _encode(config: RunConfig, scratch: Path) -> dict[str, Speed]:
    """A shard from tar to Parquet and NPZ, and beside it the same encoders on ready tensors, in turns."""
    encoder = ShardEncoder(scratch, config.encode, scratch)
    edge, batch_size = config.download.image_size, config.encode.batch_size
    pictures = _soft_pictures(batch_size, edge)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)  # laid out as the stage lays them out
    captions = [f"picture number {number} of a made-up set" for number in range(batch_size)]
    tokens = encoder.clip.tokenize(captions)

    def bare(batches: int) -> int:
        for _ in range(batches):
            made = encoder.codec.encode(pixels), encoder.clip.encode_tokens(tokens), encoder.clip.encode_images(pixels)
        for tensor in made:
            tensor.cpu()
        return batches * batch_size

    batches = max(2, round(_measure(lambda: bare(1)).median * _LEAST_S / batch_size))  # of one round
    numbered = [f"picture number {number} of a made-up set" for number in range(batches * batch_size)]
    _write_shard(scratch / "00000.tar", pictures, numbered, config.download.image_format)
    return _measure_in_turns({"bare_encoders": lambda: bare(batches), "encode": lambda: encoder("00000").rows})


def _soft_pictures(count: int, edge: int) -> np.ndarray[Any, Any]:
    """Colour gradients, which cost a decoder about what photographs do: uint8 [n, edge, edge, 3]"""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    size = (edge, edge)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in coarse])


def _train(config: RunConfig, _scratch: Path) -> dict[str, Speed]:
    device = choose_device(config.train.device)
    state = initial_state(config.train, config.model, device)
    batch = _random_batch(config, config.train.batch_size)

    def step() -> int:
        train_step(state, batch, config.train, device).loss.item()
        return config.train.batch_size

    return {"train": _measure(step)}


def _sample(config: RunConfig, _scratch: Path) -> dict[str, Speed]:
    """The denoiser's part of a sample: all its steps, with guidance."""
    device = choose_device(config.evaluate.device)
    denoiser = initial_state(config.train, config.model, device).ema
    batch = _random_batch(config, config.evaluate.batch_size)
    noise, text = torch.randn_like(batch.latents).to(device), batch.text.to(device)
    denoise, levels = guided(denoiser, config.evaluate.guidance), noise_levels(config.evaluate.steps)

    def draw() -> int:
        return len(sample_dpmpp_2m(denoise, noise, text, levels).cpu())

    return {"sample": _measure(draw)}


def _measure(work: Callable[[], int]) -> Speed:
    """Call `work`, which returns how many images it did, in rounds; one call beforehand warms up."""
    return _measure_in_turns({"work": work})["work"]


def _measure_in_turns(works: dict[str, Callable[[], int]]) -> dict[str, Speed]:
    """As `_measure`, several in turns, so that what else the machine does slows all of them alike."""
    for work in works.values():
        work()
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(_ROUNDS):
        for name, work in works.items():
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < _LEAST_S:
                done += work()
            speeds[name].append(done / elapsed)
    return {name: Speed(statistics.median(found), min(found), max(found)) for name, found in speeds.items()}


def _random_batch(config: RunConfig, count: int) -> Batch:
    model = config.model
    latents = torch.randn(count, model.latent_channels, model.latent_size, model.latent_size)
    text_shape = (count, model.text_dim) if model.text == "pooled" else (count, _TOKENS, model.text_dim)
    return Batch(latents, torch.randn(text_shape))


def _write_shard(path: Path, pictures: np.ndarray[Any, Any], captions: list[str], image_format: str) -> None:
    """A tar as the download leaves it."""
    kind = "JPEG" if image_format == "jpg" else image_format.upper()
    edge = pictures.shape[1]
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(captions):
            picture = io.BytesIO()
            Image.fromarray(pictures[number % len(pictures)]).save(picture, format=kind)
            told = {"url": "", "split": "", "original_width": edge, "original_height": edge, "sha256": ""}
            members = {image_format: picture.getvalue(), "txt": caption.encode(), "json": json.dumps(told).encode()}
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _machine(device: str) -> str:
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else torch.cpu.get_capabilities().get("cpu_name", "CPU")
    )
    arithmetic = "bf16" if has_bf16(device) else "fp32"
    return f"{device}: {name}, {torch.get_num_threads()} threads, {arithmetic}, torch {torch.__version__}"


def _figures(speed: Speed) -> dict[str, float]:
    return {name: round(getattr(speed, name), 1) for name in ("median", "slowest", "fastest")}
