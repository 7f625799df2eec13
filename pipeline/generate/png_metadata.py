"""PNG files that tell how they were made: JSON in the text entry `tld`. Knows nothing of what the
settings mean.

A picture may come from a stranger, so reading decodes no pixels, and what it gives is to be checked
by who knows it.
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
    """A picture that cannot be written, or that does not tell how it was made."""

    exit_code = 2


def write_image(image: Image.Image, settings: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with settings that JSON can say. Equal pictures with equal settings are equal
    files. Raises ImageFileError."""
    metadata = json.dumps(settings, ensure_ascii=False, sort_keys=True, allow_nan=False)
    if len(metadata) > _MOST_CHARS:
        raise ImageFileError(
            f"{path}: the settings are {len(metadata)} characters, and {_MOST_CHARS} are the most"
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
    """What a PNG tells of how it was made; a stranger may have written it. Raises
    ImageFileError."""
    metadata = _entry(path)
    if len(metadata) > _MOST_CHARS:
        raise ImageFileError(
            f"{path} tells its settings in {len(metadata)} characters; {_MOST_CHARS} are the most"
        )
    try:
        settings = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{path}: its text entry {ENTRY!r} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ImageFileError(
            f"{path}: its text entry {ENTRY!r} holds no settings, but {type(settings).__name__}"
        )
    return settings


def _entry(path: Path) -> str:
    """The text entry of a PNG, from before its pixels, which are not decoded."""
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
            f"{path} does not tell how it was made: it has no text entry {ENTRY!r}; `tld sample` "
            "writes one, and "
            "programs that save a picture anew drop it"
        )
    return metadata
