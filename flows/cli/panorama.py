"""`tld panorama`: a wide image, outpainted to the right window by window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.image_options import (
    DEFAULT_SAMPLING,
    MOST_OVERLAP,
    Bounds,
    Overlap,
    Sampling,
    bound_problems,
    file_identity,
    last_of,
    missing_files,
    prompt_problems,
    seed_bounds,
)
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.cli.problems import refuse
from flows.terminal.console import console, load, prompts_and_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOWS = 4
_Words = Annotated[
    str,
    Parameter(
        help="Prompts of further windows, each in quotes; the last one is repeated. And settings "
        "to change for this command, as section.key=value."
    ),
]
_Windows = Annotated[
    int | None,
    Parameter(
        help=f"Number of windows to paint. [default: one per prompt, or {_WINDOWS} for a single "
        "prompt]"
    ),
]


def panorama(
    config: Config,
    prompt: Annotated[str, Parameter(help="Prompt of the first window.")],
    *words: _Words,
    windows: _Windows = None,
    overlap: Overlap = None,
    picture: Annotated[Path | None, Parameter(help="Image file to extend to the right.")] = None,
    seed: Annotated[int, Parameter(help="Random seed; window i uses SEED + i.")] = 0,
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("panorama.png"),
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Sample a wide image. Each window keeps the part that it shares with the previous one and adds
    to the right.

    Example: tld panorama conf/tiny.yaml "a small red star in the center on a blue
    background" --windows 6
    """
    more, overrides = prompts_and_overrides(words)
    prompts = [prompt, *more]
    windows = windows if windows is not None else (len(prompts) if more else _WINDOWS)
    numbers = Bounds("--overlap", overlap, 1, MOST_OVERLAP), seed_bounds("--seed", seed)
    refuse(
        [
            *sampling.problems(),
            *prompt_problems(prompts),
            *file_problems(out, [".png"]),
            *missing_files(picture),
            *_window_problems(windows, prompts),
            *bound_problems(*numbers),
        ]
    )
    settings = load(config, overrides)
    source = resolve_model(config, overrides, settings, sampling.model)
    generate = source.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.input_image import read_image
    from pipeline.generate.outpaint import panorama as outpainted
    from pipeline.generate.png_metadata import write_image
    from pipeline.generate.tiling import usual_overlap

    image = read_image(picture, None, edge_of(generate)) if picture else None
    if image and image.fitting:
        console.print(image.fitting)
    captions = prompts + prompts[-1:] * (windows - len(prompts))
    overlap = overlap if overlap is not None else usual_overlap(edge_of(generate))
    start, how = image.pixels if image else None, sampling.sampling(settings)
    pixels = last_of(outpainted(generate, captions, overlap, start, seed, how, sampling.negative))
    metadata = {"command": "panorama", "prompts": captions, "overlap": overlap, "seed": seed}
    metadata |= {"picture": file_identity(picture), **sampling.metadata(settings, source)}
    write_image(Image.fromarray(pixels), metadata, out)
    console.print(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: {out}")


def _window_problems(windows: int, prompts: Sequence[str]) -> list[str]:
    from pipeline.generate.request import MOST_IMAGES

    problems = bound_problems(Bounds("--windows", windows, 1, MOST_IMAGES))
    if 1 <= windows < len(prompts):
        problems.append(f"--windows must leave none of {len(prompts)} prompts out, got {windows}")
    return problems
