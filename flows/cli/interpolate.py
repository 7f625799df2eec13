"""`tld interpolate`: from one picture to another, as a strip or moving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.image_options import (
    AS_USUAL,
    Bounds,
    Drawing,
    bound_problems,
    prompt_problems,
    refuse,
    seed_bounds,
)
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError

_STRIP, _ANIMATION = 9, 33  # frames


def interpolate(
    config: Config,
    prompt: Annotated[str, Parameter(help="What the first picture shows.")],
    *words: Annotated[
        str,
        Parameter(
            help="What the last picture shows; and settings to change, as section.key=value."
        ),
    ],
    seed: Annotated[int, Parameter(help="Of the first picture's noise.")] = 0,
    to_seed: Annotated[
        int | None, Parameter(help="Of the last picture's noise; the same without it.")
    ] = None,
    frames: Annotated[
        int | None,
        Parameter(
            help=f"Pictures, both ends among them; {_STRIP} in a strip, {_ANIMATION} in an animation."
        ),
    ] = None,
    out: Annotated[
        Path, Parameter(help="File to write: .png is a strip; .gif and .mp4 go there and back.")
    ] = Path("interpolation.png"),
    drawing: Drawing = AS_USUAL,
) -> None:
    """Draw pictures on the way from one prompt to another, from one seed to another, or both.

    For example:
    tld interpolate conf/tiny.yaml "a small red star" "a large blue circle" --out morph.gif
    """
    from pipeline.generate.request import MOST_IMAGES

    more, overrides = prompts_and_overrides(words)
    prompts = [prompt, *more]
    frames = (
        frames if frames is not None else (_STRIP if out.suffix.lower() == ".png" else _ANIMATION)
    )
    problems = [
        *drawing.problems(),
        *prompt_problems(prompts),
        *file_problems(out, [".png", ".gif", ".mp4"]),
    ]
    if len(prompts) > 2:
        problems.append(
            f"there are {len(prompts)} prompts: {', '.join(map(repr, prompts))}; give one or two, "
            "in quotes"
        )
    if len(set(prompts)) == 1 and to_seed in (None, seed):
        problems.append(
            "both ends are the same picture; give a second prompt, or another --to-seed"
        )
    problems += bound_problems(
        Bounds("--frames", frames, 2, MOST_IMAGES),
        seed_bounds("--seed", seed),
        seed_bounds("--to-seed", to_seed),
    )
    refuse(problems)
    settings = load(config, overrides)
    chosen = resolve_model(config, overrides, settings, drawing.model)
    generate = chosen.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.animation import strip, write_animation
    from pipeline.generate.interpolate import interpolate as draw
    from pipeline.generate.png_metadata import write_image

    ends, seeds = (prompts[0], prompts[-1]), (seed, seed if to_seed is None else to_seed)
    pictures = draw(generate, ends, seeds, frames, drawing.sampling(settings), drawing.negative)
    if out.suffix.lower() == ".png":
        told = {"command": "interpolate", "prompts": ends, "seeds": seeds, "frames": frames}
        write_image(Image.fromarray(strip(pictures)), told | drawing.told(settings, chosen), out)
    else:
        try:
            write_animation(pictures, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error}") from error
    console.print(f"{frames} pictures: {out}")
