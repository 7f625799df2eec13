"""A picture that somebody gives, and what of it is to be painted, in the size that a model takes.
Knows no model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from data_catalog.image_formats import FORMATS, open_image
from pipeline.generate.image_to_image import InputImageError

_KINDS = ", ".join(FORMATS)


@dataclass(frozen=True, slots=True)
class InputImage:
    """Pixels uint8 [h, w, 3], and where they are to be painted: bool [h, w]; None where nothing
    says so."""

    pixels: NDArray[np.uint8]
    paint: NDArray[np.bool_] | None
    fitting: str = ""  # what was done to make it fit, for people to read


def read_image(image: Path | BinaryIO, mask: Path | BinaryIO | None, edge: int) -> InputImage:
    """A picture cropped to the square in its middle and resized to this edge. What is to be painted
    is white in the mask, which has the picture's size; without a mask, what is transparent. Raises
    InputImageError."""
    opened = _open(image, "picture")
    paint = (
        opened.getchannel("A").point(lambda alpha: 255 * (alpha < 128))
        if "A" in opened.getbands()
        else None
    )
    if mask is not None:
        paint = _open(mask, "mask").convert("L").point(lambda white: 255 * (white > 127))
        if paint.size != opened.size:
            sizes = "the mask has {} x {} pixels and the picture {} x {}".format(
                *paint.size, *opened.size
            )
            raise InputImageError(f"{sizes}; make them one size")
        if not paint.getbbox():
            raise InputImageError("the mask paints nothing: white is painted, black stays")

    middle = _middle(opened.size)
    pixels = opened.convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS, middle)
    painted = None
    if paint is not None and paint.getbbox():
        # A pixel of which any part is to be painted is painted.
        painted = np.asarray(paint.resize((edge, edge), Image.Resampling.BOX, middle)) > 0
        if not painted.any():
            raise InputImageError(
                "all that is to be painted is outside the square in the picture's middle; crop it "
                "first"
            )
    return InputImage(np.array(pixels), painted, _fitting(opened.size, edge))


def _open(source: Path | BinaryIO, what: str) -> Image.Image:
    """Upright; RGBA where anything may be transparent."""
    name = f"{what} {source}" if isinstance(source, Path) else f"the {what}"
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            open_image(source) as image,
        ):
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except FileNotFoundError:
        raise InputImageError(f"there is no {name}") from None
    except UnidentifiedImageError:
        raise InputImageError(
            f"{name} is of no kind of picture that can be read: {_KINDS}"
        ) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        MemoryError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputImageError(f"{name} cannot be read: {error}") from error


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest square in the middle: left, top, right, bottom"""
    edge = min(size)
    left, top = ((side - edge) // 2 for side in size)
    return left, top, left + edge, top + edge


def _fitting(size: tuple[int, int], edge: int) -> str:
    width, height = size
    if width == height == edge:
        return ""
    cropped = "cropped to the square in its middle and " if width != height else ""
    return f"the picture of {width} x {height} pixels was {cropped}resized to {edge} x {edge}, which the model draws"
