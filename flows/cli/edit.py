"""`tld edit`: a picture changed as a whole, in a part, or painted on at its sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
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
from flows.terminal.console import console, errors, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDES = ("left", "right", "top", "bottom")
MOST_OVERLAP = 4096  # pixels; the model's size bounds it closer
_MOST_ADDED = 4096  # pixels at a side
Picture = Annotated[
    Path, Parameter(help="A picture file; cropped and resized to the square that the model draws.")
]
Overlap = Annotated[
    int | None,
    Parameter(
        help="Pixels that a window shares with what is there; 3/8 of the model's size without it."
    ),
]


def edit(
    config: Config,
    picture: Picture,
    prompt: Annotated[str, Parameter(help="What the new picture shows, all of it.")],
    *overrides: Overrides,
    mask: Annotated[
        Path | None,
        Parameter(
            help="White is painted, black stays as it is; of the picture's size. Without it, what is transparent."
        ),
    ] = None,
    outpaint: Annotated[
        str | None,
        Parameter(
            help="Paint on at these sides by so many of the model's pixels: left=32,right=32"
        ),
    ] = None,
    strength: Annotated[
        float | None,
        Parameter(
            help="How much is drawn anew, above 0 to 1; 0.7 without it, and with a mask 1, which takes nothing over."
        ),
    ] = None,
    overlap: Overlap = None,
    seed: Annotated[int, Parameter(help="Of the noise.")] = 0,
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("edit.png"),
    drawing: Drawing = AS_USUAL,
) -> None:
    """Change a picture: all of it; or what a mask says, the rest staying as it is; or paint on at
    its sides.

    Any model can; one trained with model.inpainting=true is told of the part that stays besides.
    For example:

    tld edit conf/tiny.yaml star.png "a large green star in the top left on a blue background" --strength 0.6

    tld edit conf/tiny.yaml star.png "a small yellow circle in the bottom right on a blue background" --mask corner.png

    tld edit conf/tiny.yaml star.png "a small red star in the bottom right on a blue background" --outpaint right=64
    """
    sides, problems = _sides(outpaint) if outpaint is not None else ({}, [])
    problems += [
        *drawing.problems(),
        *bound_problems(seed_bounds("--seed", seed), Bounds("--overlap", overlap, 1, MOST_OVERLAP)),
        *prompt_problems([prompt]),
        *file_problems(out, [".png"]),
        *lacking_files(picture, mask),
    ]
    if strength is not None and not 0 < strength <= 1:
        problems.append(f"--strength must be above 0 and at most 1, got {strength:g}")
    if outpaint is not None and (mask is not None or strength is not None):
        problems.append(
            "--outpaint goes with neither --mask nor --strength: what is there stays, what is "
            "added is new"
        )
    if outpaint is None and overlap is not None:
        problems.append("--overlap is of --outpaint")
    refuse(problems)
    settings = load(config, overrides)
    chosen = resolve_model(config, overrides, settings, drawing.model)
    generate = chosen.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.image_to_image import USUAL_STRENGTH, edge_of, image_to_image
    from pipeline.generate.inpaint import inpaint
    from pipeline.generate.input_image import read_image
    from pipeline.generate.outpaint import outpaint as paint_on
    from pipeline.generate.png_metadata import write_image
    from pipeline.generate.tiling import Border, usual_overlap

    given = read_image(picture, mask, edge_of(generate))
    if given.fitting:
        console.print(given.fitting)
    how = drawing.sampling(settings), drawing.negative
    if sides and given.paint is not None:
        raise UserError(
            f"{picture} is transparent in places: first paint those, without --outpaint"
        )
    if sides:
        overlap = overlap if overlap is not None else usual_overlap(edge_of(generate))
        grown = paint_on(generate, prompt, given.pixels, Border(**sides), overlap, seed, *how)
        drawn = last_of(grown)
    elif given.paint is not None:
        strength = strength or 1
        drawn = inpaint(generate, [prompt], given.pixels, given.paint, [seed], *how, strength)[0]
    else:
        strength = strength or USUAL_STRENGTH
        drawn = image_to_image(generate, [prompt], given.pixels, strength, [seed], *how)[0]
    told = {
        "command": "edit",
        "prompt": prompt,
        "seed": seed,
        "picture": file_told(picture),
        "mask": file_told(mask),
    }
    told |= {"outpaint": sides, "overlap": overlap, "strength": strength}
    write_image(Image.fromarray(drawn), told | drawing.told(settings, chosen), out)
    console.print(f"{drawn.shape[1]} x {drawn.shape[0]} pixels: {out}")


def last_of(canvases: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The last, while the terminal shows how far it is."""
    with errors.status("window 1 …") as shown:
        for done, canvas in enumerate(canvases, 1):
            shown.update(f"window {done + 1} …")
            last = canvas
    return last


def file_told(path: Path | None) -> dict[str, str] | None:
    """A file in the settings of a PNG: its name, and its content by digest."""
    if path is None:
        return None
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sides(text: str) -> tuple[dict[str, int], list[str]]:
    """left=32,right=32 -> pixels of each side, and what is wrong with the text."""
    sides: dict[str, int] = {}
    for part in text.split(","):
        side, equals, pixels = part.strip().partition("=")
        if side not in _SIDES or not equals or not pixels.isdecimal() or side in sides:
            return {}, [
                f"--outpaint: {part!r} is not a side and its pixels; like "
                "left=32,right=32,top=16,bottom=16"
            ]
        sides[side] = int(pixels)
    problems = bound_problems(
        *(Bounds(f"--outpaint: {side}", sides[side], 0, _MOST_ADDED) for side in sides)
    )
    if not any(sides.values()):
        problems.append("--outpaint: 0 pixels at every side leave the picture as it is")
    return sides, problems
