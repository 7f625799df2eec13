"""PNG files with the metadata of their image, as JSON in the text entry `tld`.

A file may come from an untrusted source, so reading decodes no pixels and validates every field.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

from PIL import Image, PngImagePlugin

from data_catalog.image_formats import open_image
from data_catalog.storage.files import replacing
from pipeline.generate.image_metadata import ImageMetadata, validate_metadata
from tld_model.config import SamplingSettings

ENTRY = "tld"
_ANIMATIONS = (".gif", ".mp4")
_MOST_CHARS = 1_000_000


class ImageFileError(ValueError):
    """An image cannot be written, or has no readable metadata."""

    exit_code = 2


def png_file(image: Image.Image, metadata: ImageMetadata) -> bytes:
    """A PNG with its metadata; equal images with equal metadata give equal files.

    Raises ImageFileError if the metadata is too long.
    """
    entry = json.dumps(metadata.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
    if len(entry) > _MOST_CHARS:
        raise ImageFileError(
            f"the settings have {len(entry)} characters; a PNG holds up to {_MOST_CHARS}"
        )
    entries, png = PngImagePlugin.PngInfo(), io.BytesIO()
    entries.add_itxt(ENTRY, entry)
    image.save(png, format="PNG", pnginfo=entries)
    return png.getvalue()


def write_image(image: Image.Image, metadata: ImageMetadata, path: Path) -> None:
    """Write a PNG with its metadata.

    Raises ImageFileError if the file cannot be written or the metadata is too long.
    """
    png = png_file(image, metadata)
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(png)
    except OSError as error:
        raise ImageFileError(f"cannot write {path}: {error.strerror}") from error


def read_metadata(path: Path, own: SamplingSettings) -> ImageMetadata:
    """Metadata of a PNG of this version or an earlier one, which may be from anybody.

    What a file of an earlier version does not say of sampling is taken from `own`, the settings of
    the run.

    Raises:
        ImageFileError: the file is no PNG with such metadata.
        ValidationError: the metadata is out of bounds (pydantic's error).
    """
    entry = _entry(path)
    if len(entry) > _MOST_CHARS:
        raise ImageFileError(
            f"{path}: its settings have {len(entry)} characters; the maximum is {_MOST_CHARS}"
        )
    try:
        stored = json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{path}: its text entry {ENTRY!r} is not JSON: {error}") from error
    metadata = validate_metadata(stored, own) if isinstance(stored, dict) else None
    if metadata is None:
        raise ImageFileError(
            f"{path}: its text entry {ENTRY!r} holds no request of an image of tld"
        )
    return metadata


def _entry(path: Path) -> str:
    """The text entry of a PNG. It precedes the pixels, which are not decoded."""
    if path.suffix.lower() in _ANIMATIONS and path.is_file():
        raise ImageFileError(
            f"{path} is an animation, which holds no metadata; only PNG files do (a strip of "
            "`tld interpolate`, for example)"
        )
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            open_image(path, formats=("PNG",), text=True) as image,
        ):
            metadata = image.info.get(ENTRY)
    except FileNotFoundError:
        raise ImageFileError(f"there is no file {path}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path} is not a readable PNG: {error}") from error
    if not isinstance(metadata, str):
        raise ImageFileError(
            f"{path} has no tld metadata (PNG text entry {ENTRY!r}): tld writes it, and other "
            "programs drop it when they save the image again"
        )
    return metadata
