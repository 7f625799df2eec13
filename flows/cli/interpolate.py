"""`tld interpolate`: images between two prompts or two seeds, as a strip or an animation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.image_options import DEFAULT_SAMPLING, NO_PROMPT, Sampling
from flows.cli.like import Basis, read_basis
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.cli.problems import refuse
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from data_catalog.images import Images
    from pipeline.generate.image_metadata import Origin
    from pipeline.generate.request import InterpolateRequest

_STRIP, _ANIMATION = 9, 33  # frames
_Words = Annotated[
    str,
    Parameter(
        help="Prompts of the first and the last image, each in quotes; one stands for both. And "
        "settings to change for this command, as section.key=value."
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
    Parameter(
        help="File to write: .png is a strip; .gif and .mp4 are loops, there and back, which hold "
        "nothing for --like."
    ),
]


def interpolate(
    config: Config,
    *words: _Words,
    seed: Annotated[
        int | None, Parameter(help="Random seed of the first image. [default: 0]")
    ] = None,
    to_seed: Annotated[
        int | None, Parameter(help="Random seed of the last image. [default: SEED]")
    ] = None,
    frames: _Frames = None,
    out: _Out = Path("interpolation.png"),
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Sample images between two prompts, two seeds, or both.

    Examples:

    tld interpolate tiny "a small red star in the center on a blue background"
    "a large blue circle in the center on a red background" --out morph.gif

    tld interpolate tiny --like interpolation.png --frames 33 --out morph.gif
    """
    prompts, overrides = prompts_and_overrides(words)
    settings = load(config, overrides)
    resolve = partial(resolve_model, config, overrides, settings, sampling.model)
    basis = read_basis(settings, sampling.like, resolve, other_model=sampling.other_model)
    changes = {
        **sampling.changes(),
        "prompts": prompts or None,
        "seed": seed,
        "to_seed": to_seed,
        "frames": frames,
    }
    request = _read_request(basis, changes, out)

    from pipeline.generate.interpolate import interpolate as interpolated
    from pipeline.generate.request import InterpolateRequest

    generate, origin = basis.load(InterpolateRequest)
    how = request.frames, request.sampling, request.negative
    images = interpolated(generate, request.ends, request.seeds, *how)
    _write(images, request, origin, out)
    count = (
        request.frames if request.frame is None else f"image {request.frame} of {request.frames}"
    )
    console.print(f"{count}{' images' if request.frame is None else ''}: {out}")


def _read_request(basis: Basis, changes: dict[str, Any], out: Path) -> InterpolateRequest:
    """The request of the command line. Raises Problems with all that is wrong."""
    from pipeline.generate.request import InterpolateRequest

    is_strip = out.suffix.lower() == ".png"
    fields = {
        "frames": _STRIP if is_strip else _ANIMATION,
        **basis.fields(InterpolateRequest, changes),
    }
    if changes["frames"] is not None or not is_strip:
        fields.pop("frame", None)  # all of them are wanted
    request, problems = basis.validate(InterpolateRequest, fields, {"prompts": NO_PROMPT})
    is_asked_anew = "prompts" in fields and not basis.record_of(InterpolateRequest)
    if request and is_asked_anew and len(set(request.ends)) == len(set(request.seeds)) == 1:
        problems.append("both ends are the same image; give a second prompt, or another --to-seed")
    refuse([*basis.problems, *problems, *file_problems(out, [".png", ".gif", ".mp4"])])
    assert request
    return request


def _write(images: Images, request: InterpolateRequest, origin: Origin, out: Path) -> None:
    """Write a strip, an animation, or the one frame that was asked for."""
    from PIL import Image

    from pipeline.generate.animation import strip, write_animation
    from pipeline.generate.image_metadata import ImageMetadata
    from pipeline.generate.png_metadata import write_image

    if out.suffix.lower() == ".png":
        pixels = strip(images) if request.frame is None else images[request.frame]
        write_image(Image.fromarray(pixels), ImageMetadata(request=request, origin=origin), out)
        return
    try:
        write_animation(images, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
