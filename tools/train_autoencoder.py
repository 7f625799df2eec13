"""Training of a small autoencoder (VAE) on the images of a run.

    tld run CONFIG --until download
    python -m tools.train_autoencoder CONFIG --out FOLDER

A VAE that was trained on photographs blurs drawings, icons and scans; a small one of their own
draws them better. It is trained on the images of stage 1 but those that the run holds out, and
measured on these. FOLDER has an `AutoencoderDC` of diffusers, to be named in `encode.vae`, and
round_trips.png: held-out images, and what is left of them, one row below the other.

There is no adversarial loss, so detail that does not fit into the latents becomes blur: take more
channels until the round trips are good enough. --perceptual 0.1 makes them sharper at a lower PSNR.
A run that was stopped goes on with --start FOLDER from the weights of the last measurement, with a
new learning rate schedule.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderDC
from torch import Tensor

from data_catalog.storage.files import replacing, replacing_folder
from pipeline.compute.devices import use_device
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.reporting.image_grid import image_grid
from tools.autoencoder_options import Options, check_options, parse_options
from tools.autoencoder_recipe import (
    Distance,
    new_autoencoder,
    round_trip,
    round_trip_psnr,
    set_scaling_factor,
    train_autoencoder,
)
from tools.encoder_training import Recipe, Step
from tools.perceptual_distance import perceptual_distance
from tools.stage_one_images import ImageSplit, read_images

_SHOWN = 8
_MEASURED = 256  # images while training; in the end, all that are held out
_MEASURE_EVERY = 250  # steps
_SCALED_BY = 2048  # images whose latents decide the scaling factor


def main(words: Sequence[str] | None = None) -> int:
    """Train, measure and save. Returns the exit code."""
    options = parse_options(words, __doc__)
    try:
        config = load_config(options.config, options.overrides)
        check_options(options, config)
        device = use_device(options.device)
        distance = _weighted(options.perceptual, device)
        split = read_images(config, int(options.memory_gb * 2**30))
    except Exception as error:
        if (code := getattr(error, "exit_code", None)) is None:
            raise
        print(error, file=sys.stderr)
        return int(code)
    print(f"{len(split.train)} images to train on, {len(split.held_out)} held out; on {device}")
    torch.manual_seed(options.seed)
    autoencoder = _start(options).to(device)
    print(f"{sum(weight.numel() for weight in autoencoder.parameters()):,} weights", flush=True)
    recipe = Recipe(options.steps, options.batch_size, options.learning_rate, options.seed)
    for step in train_autoencoder(autoencoder, _batches(split, recipe), recipe, distance):
        if step.number % _MEASURE_EVERY == 0 or step.number == recipe.steps:
            autoencoder.eval()
            print(_progress(step, recipe, autoencoder, split.held_out), flush=True)
            largest = _save(autoencoder, split, options.out)
            autoencoder.train()
    print(_summary(options, config, split, largest))
    return 0


def _start(options: Options) -> AutoencoderDC:
    if options.start:
        return load_autoencoder(options.start)
    return new_autoencoder(options.widths, options.channels)


def load_autoencoder(folder: Path) -> AutoencoderDC:
    """What this tool has written, in float32."""
    return AutoencoderDC.from_pretrained(
        folder, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
    ).eval()


def _weighted(weight: float, device: str) -> Distance | None:
    if not weight:
        return None
    distance = perceptual_distance(device)
    return lambda decoded, pixels: weight * distance(decoded, pixels)


def _batches(split: ImageSplit, recipe: Recipe) -> Iterator[Tensor]:
    """Random images, half of them mirrored: uint8 [b, 3, h, w]."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        chosen = torch.randint(len(split.train), (recipe.batch_size,), generator=generator)
        batch = split.images[split.train[chosen]]
        mirrored = torch.rand(recipe.batch_size, generator=generator) < 0.5
        yield torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)


def _progress(step: Step, recipe: Recipe, autoencoder: AutoencoderDC, held_out: Tensor) -> str:
    shown = held_out[:_MEASURED]
    left = step.seconds / step.number * (recipe.steps - step.number)
    return (
        f"step {step.number}/{recipe.steps}  loss {step.loss.item():.4f}  "
        f"PSNR {round_trip_psnr(autoencoder, shown):.2f} dB on {len(shown)} held-out images"
        f"  {step.seconds / 60:.1f} min, {left / 60:.1f} to go"
    )


def _save(autoencoder: AutoencoderDC, split: ImageSplit, out: Path) -> float:
    """Write the folder, with weights in float16. Returns the largest scaled latent."""
    largest = float(
        set_scaling_factor(autoencoder, split.images[split.train[:_SCALED_BY]]).abs().max()
    )
    shown = split.held_out[:: max(1, len(split.held_out) // _SHOWN)][:_SHOWN]
    rows = torch.cat([shown, round_trip(autoencoder, shown)]).permute(0, 2, 3, 1).numpy()
    words = ["held out"] * len(shown) + ["round trip"] * len(shown)
    with replacing_folder(out) as unfinished:
        copy.deepcopy(autoencoder).half().save_pretrained(unfinished)
        with replacing(unfinished / "round_trips.png") as path:
            image_grid(list(rows), words, columns=len(shown)).save(path, format="PNG")
    return largest


def _summary(options: Options, config: RunConfig, split: ImageSplit, largest: float) -> str:
    """What was reached, measured on the files that were written, and the settings to use them."""
    written = load_autoencoder(options.out)
    reached = round_trip_psnr(written, split.held_out)
    channels = written.config["latent_channels"]
    measured = min(len(split.train), _SCALED_BY)
    levels = len(written.config["encoder_block_out_channels"]) - 1
    return "\n".join(
        (
            f"{reached:.2f} dB PSNR on all {len(split.held_out)} held-out images; see "
            f"{options.out / 'round_trips.png'}",
            "",
            "encode:",
            f"  vae: {options.out}",
            f"  latent_clip: {largest:.1f}   # the largest latent of {measured} images",
            "model:",
            f"  latent_channels: {channels}",
            f"  latent_size: {config.download.image_size // 2**levels}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
