"""The options of `tld sample`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from data_catalog.model_files import Average
from flows.cli.image_options import Guidance, Solver, Steps
from flows.cli.like import Like, OtherModel
from flows.cli.model_source import Model


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """What to sample, how, with which model, and where the images go."""

    prompts: Annotated[
        Path | None,
        Parameter(
            help="Text file with one prompt per line; - reads standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None
    count: Annotated[
        int | None,
        Parameter(help="Images per prompt. [default: 16 for one prompt, 1 each for several]"),
    ] = None
    seed: Annotated[
        int | None,
        Parameter(help="Random seed; image i of each prompt uses SEED + i. [default: 0]"),
    ] = None
    steps: Steps = None
    guidance: Guidance = None
    solver: Solver = None
    size: Annotated[
        str | None,
        Parameter(
            help="Width and height in pixels, such as 768x512. Positional embeddings are "
            "interpolated, so image quality drops far from the training size. "
            "[default: the training size]"
        ),
    ] = None
    negative: Annotated[
        str | None, Parameter(help="Negative prompt: what the images should not show.")
    ] = None
    model: Model = None
    ema: Annotated[
        Average | None,
        Parameter(
            show_choices=False,
            help="Which EMA of train.ema_decay to sample with, numbered from 0, or best "
            "(train.score.best_by). [default: evaluate.ema]",
        ),
    ] = None
    like: Like = None
    other_model: OtherModel = False
    out: Annotated[
        Path,
        Parameter(
            help="FILE.png writes all images as one grid with their prompts; FOLDER writes one "
            "PNG per image."
        ),
    ] = Path("sample.png")


DEFAULT_OPTIONS = SampleOptions()
Options = Annotated[SampleOptions, Parameter(name="*")]
