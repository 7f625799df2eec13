"""PNG metadata: the settings that generated an image, as JSON in the text entry `tld`.

A file may come from an untrusted source, so reading decodes no pixels, and the caller must validate
the settings that it returns.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from data_catalog.image_formats import open_image
from data_catalog.storage.files import replacing

ENTRY = "tld"
_MOST_CHARS = 1_000_000


class ImageFileError(ValueError):
    """An image cannot be written, or has no readable metadata."""

    exit_code = 2


def write_image(image: Image.Image, settings: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with JSON settings; equal images with equal settings give equal files.

    Raises ImageFileError if the file cannot be written or the settings are too long.
    """
    metadata = json.dumps(settings, ensure_ascii=False, sort_keys=True, allow_nan=False)
    if len(metadata) > _MOST_CHARS:
        raise ImageFileError(
            f"{path}: the settings have {len(metadata)} characters; the maximum is {_MOST_CHARS}"
        )
    entries, png = PngImagePlugin.PngInfo(), io.BytesIO()
    entries.add_itxt(ENTRY, metadata)
    image.save(png, format="PNG", pnginfo=entries)

    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(png.getbuffer())
    except OSError as error:
        raise ImageFileError(f"cannot write {path}: {error.strerror}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Settings that a PNG was generated with, unvalidated: the file may be from anybody.

    Raises ImageFileError if the file is no PNG with such settings.
    """
    metadata = _entry(path)
    if len(metadata) > _MOST_CHARS:
        raise ImageFileError(
            f"{path}: its settings have {len(metadata)} characters; the maximum is {_MOST_CHARS}"
        )
    try:
        settings = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{path}: its text entry {ENTRY!r} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ImageFileError(
            f"{path}: its text entry {ENTRY!r} holds a {type(settings).__name__}, not settings"
        )
    return settings


def _entry(path: Path) -> str:
    """The text entry of a PNG. It precedes the pixels, which are not decoded."""
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
            f"{path} has no tld metadata (PNG text entry {ENTRY!r}): `tld sample` writes it, and "
            "other programs drop it when they save the image again"
        )
    return metadata
