"""Input images and masks, read from files and fitted to the size of a model."""

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
    """Pixels uint8 [h, w, 3] and the mask to paint, bool [h, w], or None if there is none."""

    pixels: NDArray[np.uint8]
    paint: NDArray[np.bool_] | None
    fitting: str = ""  # how the image was fitted, as a sentence for the user


def read_image(image: Path | BinaryIO, mask: Path | BinaryIO | None, edge: int) -> InputImage:
    """Read an image, crop it to its central square and resize it to `edge`.

    White pixels of the mask, which must have the image's size, are to be painted; without a mask,
    transparent pixels are. Raises InputImageError if the image or the mask is not usable.
    """
    opened = _open(image, "image")
    paint = (
        opened.getchannel("A").point(lambda alpha: 255 * (alpha < 128))
        if "A" in opened.getbands()
        else None
    )
    if mask is not None:
        paint = _open(mask, "mask").convert("L").point(lambda white: 255 * (white > 127))
        if paint.size != opened.size:
            sizes = "the mask has {} x {} pixels and the image {} x {}".format(
                *paint.size, *opened.size
            )
            raise InputImageError(f"{sizes}; make them the same size")
        if not paint.getbbox():
            raise InputImageError("the mask selects nothing: white is painted, black is kept")

    square = _central_square(opened.size)
    pixels = opened.convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS, square)
    painted = None
    if paint is not None and paint.getbbox():
        # A pixel is painted if any part of it is to be painted.
        painted = np.asarray(paint.resize((edge, edge), Image.Resampling.BOX, square)) > 0
        if not painted.any():
            raise InputImageError(
                "everything to be painted lies outside the central square of the image; crop it "
                "first"
            )
    return InputImage(np.array(pixels), painted, _describe_fitting(opened.size, edge))


def _open(source: Path | BinaryIO, what: str) -> Image.Image:
    """Open an image upright, as RGBA if it may have transparent pixels, else as RGB."""
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
            f"{name} is not in an image format that can be read: {_KINDS}"
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


def _central_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest central square: left, top, right, bottom."""
    edge = min(size)
    left, top = ((side - edge) // 2 for side in size)
    return left, top, left + edge, top + edge


def _describe_fitting(size: tuple[int, int], edge: int) -> str:
    width, height = size
    if width == height == edge:
        return ""
    cropped = "cropped to its central square and " if width != height else ""
    return (
        f"the image of {width} x {height} pixels was {cropped}resized to {edge} x {edge}, "
        "the size of the model's images"
    )
