"""`tld edit`: image-to-image, inpainting and outpainting of an image file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
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
from flows.cli.problems import Problems, attempt, refuse
from flows.terminal.console import console, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.input_image import InputImage
    from tld_model.config import SamplingSettings

_SIDES = ("left", "right", "top", "bottom")
_MOST_ADDED = 4096  # pixels per side
Picture = Annotated[
    Path,
    Parameter(help="Image file; it is cropped and resized to the square that the model samples."),
]


@dataclass(frozen=True, slots=True)
class EditOptions:
    """What to change, and where the result goes."""

    mask: Annotated[
        Path | None,
        Parameter(
            help="Mask for inpainting, of the image's size: white is painted, black is kept. "
            "Without it, transparent pixels of the image are painted."
        ),
    ] = None
    outpaint: Annotated[
        str | None,
        Parameter(
            help="Outpaint: add this number of the model's pixels at each side, as in "
            "left=32,right=32."
        ),
    ] = None
    strength: Annotated[
        float | None,
        Parameter(
            help="How much of the image is replaced, above 0 and up to 1. [default: 0.7, or 1 "
            "with a mask, which ignores what was in the painted part]"
        ),
    ] = None
    overlap: Overlap = None
    seed: Annotated[int, Parameter(help="Random seed.")] = 0
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("edit.png")


_DEFAULTS = EditOptions()


def edit(
    config: Config,
    picture: Picture,
    prompt: Annotated[str, Parameter(help="What the whole edited image shows.")],
    *overrides: Overrides,
    options: Annotated[EditOptions, Parameter(name="*")] = _DEFAULTS,
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Edit an image: image-to-image, inpaint (--mask) or outpaint (--outpaint).

    Any model of this project can edit. Models trained with model.inpainting=true also see the part
    that is kept, and take less time for it. Examples:

    tld edit conf/tiny.yaml star.png "a large green circle in the center on a
    white background" --strength 0.6

    tld edit conf/tiny.yaml star.png "a small red star in the top left on a
    white background" --mask corner.png

    tld edit conf/tiny.yaml star.png "a small red star in the top left on a
    blue background" --outpaint right=64
    """
    sides = _check(picture, prompt, options, sampling.problems())
    settings = load(config, overrides)
    source = resolve_model(config, overrides, settings, sampling.model)
    generate = source.load(settings.evaluate.device)

    from PIL import Image

    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.input_image import read_image
    from pipeline.generate.png_metadata import write_image

    image = read_image(picture, options.mask, edge_of(generate))
    if image.fitting:
        console.print(image.fitting)
    if sides and image.paint is not None:
        raise UserError(f"{picture} has transparent parts: paint those first, without --outpaint")
    how = sampling.sampling(settings), sampling.negative
    if sides:
        pixels, changed = _outpainted(generate, prompt, image, sides, options, how)
    else:
        pixels, changed = _repainted(generate, prompt, image, options, how)
    metadata = {
        "command": "edit",
        "prompt": prompt,
        "seed": options.seed,
        "picture": file_identity(picture),
        "mask": file_identity(options.mask),
        "outpaint": sides,
        **changed,
    }
    write_image(
        Image.fromarray(pixels), metadata | sampling.metadata(settings, source), options.out
    )
    console.print(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: {options.out}")


def _check(
    picture: Path, prompt: str, options: EditOptions, sampling_problems: list[str]
) -> dict[str, int]:
    """The pixels to add at each side. Raises Problems with all that is wrong."""
    sides, side_problems = attempt(_sides, options.outpaint)
    problems = [
        *side_problems,
        *sampling_problems,
        *bound_problems(
            seed_bounds("--seed", options.seed),
            Bounds("--overlap", options.overlap, 1, MOST_OVERLAP),
        ),
        *prompt_problems([prompt]),
        *file_problems(options.out, [".png"]),
        *missing_files(picture, options.mask),
    ]
    strength, outpaint = options.strength, options.outpaint
    if strength is not None and not 0 < strength <= 1:
        problems.append(f"--strength must be above 0 and at most 1, got {strength:g}")
    if outpaint is not None and (options.mask is not None or strength is not None):
        problems.append(
            "--outpaint goes with neither --mask nor --strength: it keeps the whole image and "
            "adds new parts"
        )
    if outpaint is None and options.overlap is not None:
        problems.append("--overlap is an option of --outpaint")
    refuse(problems)
    return sides or {}


_How = tuple["SamplingSettings", str]  # sampling settings, negative prompt
_Edited = tuple["NDArray[np.uint8]", dict[str, Any]]  # pixels, what goes into the metadata


def _outpainted(
    generate: ImageGenerator,
    prompt: str,
    image: InputImage,
    sides: dict[str, int],
    options: EditOptions,
    how: _How,
) -> _Edited:
    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.outpaint import outpaint
    from pipeline.generate.tiling import Border, usual_overlap

    overlap = options.overlap if options.overlap is not None else usual_overlap(edge_of(generate))
    canvases = outpaint(
        generate, prompt, image.pixels, Border(**sides), overlap, options.seed, *how
    )
    return last_of(canvases), {"overlap": overlap, "strength": options.strength}


def _repainted(
    generate: ImageGenerator, prompt: str, image: InputImage, options: EditOptions, how: _How
) -> _Edited:
    from pipeline.generate.image_to_image import USUAL_STRENGTH, image_to_image
    from pipeline.generate.inpaint import inpaint

    prompts, seeds = [prompt], [options.seed]
    if image.paint is not None:
        strength = options.strength or 1
        images = inpaint(generate, prompts, image.pixels, image.paint, seeds, *how, strength)
    else:
        strength = options.strength or USUAL_STRENGTH
        images = image_to_image(generate, prompts, image.pixels, strength, seeds, *how)
    return images[0], {"overlap": options.overlap, "strength": strength}


def _sides(text: str | None) -> dict[str, int]:
    """left=32,right=32 -> pixels of each side. Raises UserError or Problems."""
    sides: dict[str, int] = {}
    for part in text.split(",") if text is not None else ():
        side, equals, pixels = part.strip().partition("=")
        if side not in _SIDES or not equals or not pixels.isdecimal() or side in sides:
            raise UserError(
                f"--outpaint: {part!r} is not a side and its pixels; write it like "
                "left=32,right=32,top=16,bottom=16"
            )
        sides[side] = int(pixels)
    problems = bound_problems(
        *(Bounds(f"--outpaint: {side}", sides[side], 0, _MOST_ADDED) for side in sides)
    )
    if text is not None and not any(sides.values()):
        problems.append("--outpaint: 0 pixels at every side leave the image as it is")
    if problems:
        raise Problems(problems)
    return sides
