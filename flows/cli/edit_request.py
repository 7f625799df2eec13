"""Options of `tld edit`, and reading its request from the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.image_options import NO_PROMPT, Overlap, SamplingOptions, identify_file
from flows.cli.like import Basis, OtherImage
from flows.cli.out_path import file_problems
from flows.cli.problems import attempt, refuse
from flows.terminal.console import prompts_and_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.generate.request import EditRequest

_SIDES = ("left", "right", "top", "bottom")
ImageWord = Annotated[
    str | None,
    Parameter(
        name="--picture",
        help="Image file; it is cropped and resized to the square that the model samples.",
    ),
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
    seed: Annotated[int | None, Parameter(help="Random seed. [default: 0]")] = None
    other_image: OtherImage = False
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("edit.png")


def read_words(image: str | None, words: Sequence[str]) -> tuple[Path | None, list[str], list[str]]:
    """The image, the prompts and the overrides, which may stand before the image too."""
    if image is None:
        return None, *prompts_and_overrides(words)
    with contextlib.suppress(OSError):
        if Path(image).is_file():  # its name may look like an override
            return Path(image), *prompts_and_overrides(words)
    others, overrides = prompts_and_overrides([image, *words])
    return Path(others[0]) if others else None, others[1:], overrides


def read_request(
    basis: Basis,
    image: Path | None,
    prompts: Sequence[str],
    options: EditOptions,
    sampling: SamplingOptions,
) -> EditRequest:
    """The request of the command line. Raises Problems with all that is wrong."""
    from pipeline.generate.request import EditRequest

    image_file, image_problems = attempt(identify_file, image)
    mask_file, mask_problems = attempt(identify_file, options.mask)
    sides, side_problems = attempt(read_sides, options.outpaint)
    changes = {
        **sampling.changes(),
        "prompts": prompts or None,
        "seed": options.seed,
        "image": image_file,
        "mask": mask_file,
        "strength": options.strength,
        "outpaint": {"right": 1} if side_problems else sides,
        "overlap": options.overlap,
    }
    fields, recorded = basis.fields(EditRequest, changes), basis.record_of(EditRequest)
    for name in _superseded(options):
        fields[name] = changes[name]
    if image_file is None:
        fields.pop("image", None)
    needed = {
        "prompts": NO_PROMPT,
        "image": "" if image or recorded else "no image; name the file to edit after CONFIG",
    }
    request, problems = basis.validate(EditRequest, fields, needed)
    input_problems: list[str] = []
    if recorded and not image_problems:
        input_problems = basis.input_problems(
            recorded.image, image_file, "PICTURE", other_image=options.other_image
        )
    if recorded and not mask_problems and options.outpaint is None:
        input_problems += basis.input_problems(
            recorded.mask, mask_file, "--mask", other_image=options.other_image
        )
    refuse(
        [
            *basis.problems,
            *image_problems,
            *mask_problems,
            *side_problems,
            *problems,
            *input_problems,
            *file_problems(options.out, [".png"]),
        ]
    )
    assert request
    return request


def _superseded(options: EditOptions) -> tuple[str, ...]:
    """The fields that do not count as recorded, because the options ask for another kind of
    edit."""
    if options.outpaint is not None:
        return "mask", "strength"
    return ("outpaint", "overlap") if options.mask or options.strength is not None else ()


def read_sides(text: str | None) -> dict[str, int] | None:
    """left=32,right=32 -> pixels of each side. Raises UserError."""
    if text is None:
        return None
    sides: dict[str, int] = {}
    for part in text.split(","):
        side, equals, pixels = part.strip().partition("=")
        if side not in _SIDES or not equals or not pixels.isdecimal() or side in sides:
            raise UserError(
                f"--outpaint: {part!r} is not a side and its pixels; write it like "
                "left=32,right=32,top=16,bottom=16"
            )
        sides[side] = int(pixels)
    return sides
