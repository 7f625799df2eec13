"""`tld edit`: image-to-image, inpainting and outpainting of an image file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.edit_request import EditOptions, ImageWord, read_request, read_words
from flows.cli.groups import Config
from flows.cli.image_options import DEFAULT_SAMPLING, Sampling, last_of
from flows.cli.like import read_basis
from flows.cli.model_source import resolve_model
from flows.terminal.console import console, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.input_image import InputImage
    from pipeline.generate.request import EditRequest

_DEFAULTS = EditOptions()
_Words = Annotated[
    str,
    Parameter(
        help="What the whole edited image shows, in quotes. And settings to change for this "
        "command, as section.key=value."
    ),
]


def edit(
    config: Config,
    image: ImageWord = None,
    *words: _Words,
    options: Annotated[EditOptions, Parameter(name="*")] = _DEFAULTS,
    sampling: Sampling = DEFAULT_SAMPLING,
) -> None:
    """Edit an image: image-to-image, inpaint (--mask) or outpaint (--outpaint).

    Any model of this project can edit. Models trained with model.inpainting=true also see the part
    that is kept, and take less time for it. Examples:

    tld edit tiny star.png "a large green circle in the center on a
    white background" --strength 0.6

    tld edit tiny star.png "a small red star in the top left on a
    white background" --mask corner.png

    tld edit tiny star.png "a small red star in the top left on a
    blue background" --outpaint right=64

    tld edit tiny star.png --like edit.png --seed 1
    """
    path, prompts, overrides = read_words(image, words)
    settings = load(config, overrides)
    resolve = partial(resolve_model, config, overrides, settings, sampling.model)
    basis = read_basis(settings, sampling.like, resolve, other_model=sampling.other_model)
    request = read_request(basis, path, prompts, options, sampling)

    from PIL import Image

    from pipeline.generate.image_metadata import ImageMetadata
    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.input_image import read_image
    from pipeline.generate.png_metadata import write_image
    from pipeline.generate.request import EditRequest

    assert path
    generate, origin = basis.load(EditRequest)
    input_image = read_image(path, options.mask, edge_of(generate))
    if input_image.fitting:
        console.print(input_image.fitting)
    if request.outpaint and input_image.paint is not None:
        raise UserError(f"{path} has transparent parts: paint those first, without --outpaint")
    edited = _outpaint if request.outpaint else _repaint
    pixels, request = edited(generate, request, input_image)
    metadata = ImageMetadata(request=request, origin=origin)
    write_image(Image.fromarray(pixels), metadata, options.out)
    console.print(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: {options.out}")


_Edited = tuple["NDArray[np.uint8]", "EditRequest"]  # pixels, the request with what was chosen


def _outpaint(generate: ImageGenerator, request: EditRequest, image: InputImage) -> _Edited:
    from pipeline.generate.image_to_image import edge_of
    from pipeline.generate.outpaint import outpaint
    from pipeline.generate.tiling import usual_overlap

    assert request.outpaint
    overlap = request.overlap or usual_overlap(edge_of(generate))
    how = overlap, request.seed, request.sampling, request.negative
    canvases = outpaint(generate, request.prompts[0], image.pixels, request.outpaint, *how)
    return last_of(canvases), request.model_copy(update={"overlap": overlap})


def _repaint(generate: ImageGenerator, request: EditRequest, image: InputImage) -> _Edited:
    from pipeline.generate.image_to_image import USUAL_STRENGTH, image_to_image
    from pipeline.generate.inpaint import inpaint

    prompts, how = request.prompts, ([request.seed], request.sampling, request.negative)
    if image.paint is not None:
        strength = request.strength or 1
        pixels = inpaint(generate, prompts, image.pixels, image.paint, *how, strength)[0]
    else:
        strength = request.strength or USUAL_STRENGTH
        pixels = image_to_image(generate, prompts, image.pixels, strength, *how)[0]
    return pixels, request.model_copy(update={"strength": strength})
