"""`tld panorama`: a wide image, outpainted to the right window by window."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.image_options import (
    DEFAULT_SAMPLING,
    NO_PROMPT,
    Overlap,
    Sampling,
    identify_file,
    last_of,
)
from flows.cli.like import Basis, OtherImage, read_basis
from flows.cli.model_source import resolve_model
from flows.cli.out_path import file_problems
from flows.cli.problems import attempt, refuse
from flows.terminal.console import console, load, prompts_and_overrides

if TYPE_CHECKING:
    from pipeline.generate.request import PanoramaRequest

_WINDOWS = 4
_Words = Annotated[
    str,
    Parameter(
        help="Prompts of the windows, each in quotes; the last one is repeated. And settings to "
        "change for this command, as section.key=value."
    ),
]
_Windows = Annotated[
    int | None,
    Parameter(
        help=f"Number of windows to paint. [default: one per prompt, or {_WINDOWS} for a single "
        "prompt]"
    ),
]
_ImagePath = Annotated[
    Path | None, Parameter(name="--picture", help="Image file to extend to the right.")
]


def panorama(
    config: Config,
    *words: _Words,
    windows: _Windows = None,
    overlap: Overlap = None,
    image: _ImagePath = None,
    other_image: OtherImage = False,
    seed: Annotated[
        int | None, Parameter(help="Random seed; window i uses SEED + i. [default: 0]")
    ] = None,
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("panorama.png"),
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Sample a wide image. Each window keeps the part that it shares with the previous one and adds
    to the right.

    Examples:

    tld panorama tiny "a small red star in the center on a blue background" --windows 6

    tld panorama tiny --like panorama.png --windows 8
    """
    prompts, overrides = prompts_and_overrides(words)
    settings = load(config, overrides)
    resolve = partial(resolve_model, config, overrides, settings, sampling.model)
    basis = read_basis(settings, sampling.like, resolve, other_model=sampling.other_model)
    changes = {
        **sampling.changes(),
        "prompts": prompts or None,
        "seed": seed,
        "windows": windows,
        "overlap": overlap,
    }
    request = _read_request(basis, changes, image, out, other_image=other_image)

    from PIL import Image

    from pipeline.generate.image_metadata import ImageMetadata
    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.input_image import read_image
    from pipeline.generate.outpaint import panorama as outpainted
    from pipeline.generate.png_metadata import write_image
    from pipeline.generate.request import PanoramaRequest
    from pipeline.generate.tiling import usual_overlap

    generate, origin = basis.load(PanoramaRequest)
    input_image = read_image(image, None, edge_of(generate)) if image else None
    if input_image and input_image.fitting:
        console.print(input_image.fitting)
    overlap = request.overlap or usual_overlap(edge_of(generate))
    start = input_image.pixels if input_image else None
    how = request.seed, request.sampling, request.negative
    pixels = last_of(outpainted(generate, request.captions, overlap, start, *how))
    painted = request.model_copy(update={"overlap": overlap})
    write_image(Image.fromarray(pixels), ImageMetadata(request=painted, origin=origin), out)
    console.print(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: {out}")


def _read_request(
    basis: Basis, changes: dict[str, Any], image: Path | None, out: Path, *, other_image: bool
) -> PanoramaRequest:
    """The request of the command line. Raises Problems with all that is wrong."""
    from pipeline.generate.request import PanoramaRequest

    image_file, image_problems = attempt(identify_file, image)
    fields = basis.fields(PanoramaRequest, {**changes, "image": image_file})
    prompts = len(fields.get("prompts", ()))
    fields.setdefault("windows", prompts if prompts > 1 else _WINDOWS)
    request, problems = basis.validate(PanoramaRequest, fields, {"prompts": NO_PROMPT})
    if (recorded := basis.record_of(PanoramaRequest)) and not image_problems:
        problems += basis.input_problems(
            recorded.image, image_file, "--picture", other_image=other_image
        )
    refuse([*basis.problems, *image_problems, *problems, *file_problems(out, [".png"])])
    assert request
    return request
