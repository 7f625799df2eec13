"""`tld panorama`: a wide picture, painted on window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.edit import MOST_OVERLAP, Overlap, file_told, last_of
from flows.cli.groups import Config
from flows.cli.image_options import (
    AS_USUAL,
    Bounds,
    Drawing,
    bound_problems,
    lacking_files,
    prompt_problems,
    refuse,
    seed_bounds,
)
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.terminal.console import console, load, prompts_and_overrides

_WINDOWS = 4


def panorama(
    config: Config,
    prompt: Annotated[str, Parameter(help="What it shows.")],
    *words: Annotated[
        str,
        Parameter(
            help="Prompts of further windows, the last for all that follow; and settings, as section.key=value."
        ),
    ],
    windows: Annotated[
        int | None,
        Parameter(
            help=f"How many to paint; without it one for each prompt, {_WINDOWS} of a single one."
        ),
    ] = None,
    overlap: Overlap = None,
    picture: Annotated[Path | None, Parameter(help="Go on to the right of this picture.")] = None,
    seed: Annotated[int, Parameter(help="Of the noise: window i has that of seed + i.")] = 0,
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("panorama.png"),
    drawing: Drawing = AS_USUAL,
) -> None:
    """Draw a wide picture: each window holds the part that it shares with the last one and paints
    on to the right.

    For example: tld panorama conf/tiny.yaml "a small red star in the bottom right on a blue
    background" --windows 6
    """
    from pipeline.generate.request import MOST_IMAGES

    more, overrides = prompts_and_overrides(words)
    prompts = [prompt, *more]
    windows = windows if windows is not None else (len(prompts) if more else _WINDOWS)
    problems = [
        *drawing.problems(),
        *prompt_problems(prompts),
        *file_problems(out, [".png"]),
        *lacking_files(picture),
    ]
    problems += bound_problems(
        Bounds("--windows", windows, 1, MOST_IMAGES),
        Bounds("--overlap", overlap, 1, MOST_OVERLAP),
        seed_bounds("--seed", seed),
    )
    if 1 <= windows < len(prompts):
        problems.append(f"--windows must leave none of {len(prompts)} prompts out, got {windows}")
    refuse(problems)
    settings = load(config, overrides)
    chosen = resolve_model(config, overrides, settings, drawing.model)
    generate = chosen.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.input_image import read_image
    from pipeline.generate.outpaint import panorama as paint_on
    from pipeline.generate.png_metadata import write_image
    from pipeline.generate.tiling import usual_overlap

    given = read_image(picture, None, edge_of(generate)) if picture else None
    if given and given.fitting:
        console.print(given.fitting)
    captions = prompts + prompts[-1:] * (windows - len(prompts))
    overlap = overlap if overlap is not None else usual_overlap(edge_of(generate))
    start = given.pixels if given else None
    drawn = last_of(
        paint_on(
            generate, captions, overlap, start, seed, drawing.sampling(settings), drawing.negative
        )
    )
    told = {
        "command": "panorama",
        "prompts": captions,
        "overlap": overlap,
        "seed": seed,
        "picture": file_told(picture),
    }
    write_image(Image.fromarray(drawn), told | drawing.told(settings, chosen), out)
    console.print(f"{drawn.shape[1]} x {drawn.shape[0]} pixels: {out}")
