"""The section on encoding: the stage against bare encoders, and each encoder alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.bench.data_speed import measure_encoding
from pipeline.bench.synthetic_data import soft_images
from tld_model.encoders.clip import load_clip
from tld_model.encoders.vae import load_image_codec
from tools.gpu_check.bench import short_rounds
from tools.gpu_check.data import scratch_folder
from tools.gpu_check.encoders import make_clip, make_vae
from tools.gpu_check.machine import Figures, Machine


def encode(device: str) -> Figures:
    """Images a second of encoders in the shapes of SDXL's VAE and CLIP ViT-L/14 with random
    weights, and of the stage with them, from tar to Parquet and NPZ."""
    machine = Machine(device)
    with scratch_folder() as folder:
        vae, clip = make_vae(folder, machine), make_clip(folder, machine)
        size, edge = machine.size(64, 2), machine.size(256, 32)
        config = machine.config(
            f"encode.vae={vae}",
            f"encode.clip={clip}",
            f"encode.batch_size={size}",
            f"encode.device={device}",
            f"download.image_size={edge}",
        )
        yield "batch_size", size
        for name, work in _encoders(machine, vae, clip, size, edge).items():
            yield f"{name}_images_per_s", round(size / machine.milliseconds(work) * 1e3, 1)
        machine.forget_peak()
        (folder / "stage").mkdir()
        with short_rounds(machine):
            measured = measure_encoding(config, folder / "stage")
        for name, speed in measured.speeds.items():
            yield f"{name}_images_per_s", round(speed.median, 1)
        yield "over_bare_encoders", measured.details["encode_over_bare_encoders"]
        yield "memory_gib", machine.peak_gib()


def _encoders(
    machine: Machine, vae: str, clip: str, size: int, edge: int
) -> dict[str, Callable[[], object]]:
    """Work of each encoder on one batch that is on the device."""
    codec, towers = load_image_codec(vae, machine.device), load_clip(clip, machine.device)
    pixels = torch.from_numpy(soft_images(size, edge)).permute(0, 3, 1, 2).to(machine.device)
    latents = codec.encode(pixels)
    captions = [f"a photograph of thing number {number} on a table" for number in range(size)]
    tokens = {name: ids.to(machine.device) for name, ids in towers.tokenize(captions).items()}
    return {
        "vae_encode": lambda: codec.encode(pixels),
        "vae_decode": lambda: codec.decode(latents),
        "clip_images": lambda: towers.encode_images(pixels),
        "clip_text": lambda: towers.encode_tokens(tokens),
    }
