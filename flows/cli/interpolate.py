"""`tld interpolate`: images between two prompts or two seeds, as a strip or an animation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.image_options import (
    DEFAULT_SAMPLING,
    Bounds,
    Sampling,
    bound_problems,
    prompt_problems,
    seed_bounds,
)
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.cli.problems import refuse
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRIP, _ANIMATION = 9, 33  # frames
_Words = Annotated[
    str,
    Parameter(
        help="Prompt of the last image, in quotes, and settings to change for this command, as "
        "section.key=value."
    ),
]
_Frames = Annotated[
    int | None,
    Parameter(
        help=f"Number of images, with both ends. [default: {_STRIP} in a strip, {_ANIMATION} in "
        "an animation]"
    ),
]
_Out = Annotated[
    Path,
    Parameter(help="File to write: .png is a strip; .gif and .mp4 are loops, there and back."),
]


def interpolate(
    config: Config,
    prompt: Annotated[str, Parameter(help="Prompt of the first image.")],
    *words: _Words,
    seed: Annotated[int, Parameter(help="Random seed of the first image.")] = 0,
    to_seed: Annotated[
        int | None, Parameter(help="Random seed of the last image. [default: SEED]")
    ] = None,
    frames: _Frames = None,
    out: _Out = Path("interpolation.png"),
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Sample images between two prompts, two seeds, or both.

    Example: tld interpolate conf/tiny.yaml "a small red star in the center on a blue background"
    "a large blue circle in the center on a red background" --out morph.gif
    """
    more, overrides = prompts_and_overrides(words)
    prompts, seeds = [prompt, *more], (seed, seed if to_seed is None else to_seed)
    is_strip = out.suffix.lower() == ".png"
    frames = frames if frames is not None else (_STRIP if is_strip else _ANIMATION)
    refuse([*sampling.problems(), *_problems(prompts, seeds, frames, out)])
    settings = load(config, overrides)
    source = resolve_model(config, overrides, settings, sampling.model)
    generate = source.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.animation import strip, write_animation
    from pipeline.generate.interpolate import interpolate as interpolated
    from pipeline.generate.png_metadata import write_image

    ends = prompts[0], prompts[-1]
    images = interpolated(
        generate, ends, seeds, frames, sampling.sampling(settings), sampling.negative
    )
    if is_strip:
        metadata = {"command": "interpolate", "prompts": ends, "seeds": seeds, "frames": frames}
        metadata |= sampling.metadata(settings, source)
        write_image(Image.fromarray(strip(images)), metadata, out)
    else:
        try:
            write_animation(images, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error}") from error
    console.print(f"{frames} images: {out}")


def _problems(prompts: Sequence[str], seeds: tuple[int, int], frames: int, out: Path) -> list[str]:
    """All that is wrong with the prompts, the seeds, the number of frames and the file."""
    from pipeline.generate.request import MOST_IMAGES

    problems = [*prompt_problems(prompts), *file_problems(out, [".png", ".gif", ".mp4"])]
    if len(prompts) > 2:
        problems.append(
            f"there are {len(prompts)} prompts: {', '.join(map(repr, prompts))}; give one or two, "
            "in quotes"
        )
    if len(set(prompts)) == 1 and seeds[0] == seeds[1]:
        problems.append("both ends are the same image; give a second prompt, or another --to-seed")
    return problems + bound_problems(
        Bounds("--frames", frames, 2, MOST_IMAGES),
        seed_bounds("--seed", seeds[0]),
        *([seed_bounds("--to-seed", seeds[1])] if seeds[1] != seeds[0] else []),
    )
