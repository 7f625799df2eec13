"""The one function that opens picture files: only formats of an allow-list, and no file whose
structure alone would make it expensive to decode.

Pillow without such a list hands some files to other programs (EPS to Ghostscript).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin

# Decoders that the web needs; not those that call other programs (EPS) or that nobody serves as a
# photograph.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
MOST_SCANS = (
    100  # of a JPEG; progressive files have about ten, and each costs a pass over the whole picture
)
LARGEST_PROFILE = 4 << 20  # bytes of a colour profile that is used

_LARGEST_FILE = 512 << 20
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_IN_TEXT = (
    b"Raw profile type exif",
    b"XML:com.adobe.xmp",
)  # text that Pillow reads it from
_LARGEST_TEXT = 1 << 20
# A marker of JPEG, but those that stand inside of a scan.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_START_OF_SCAN, _END_OF_IMAGE, _START_OF_IMAGE, _NO_LENGTH = 0xDA, 0xD9, 0xD8, 0x01

PngImagePlugin.MAX_TEXT_CHUNK = LARGEST_PROFILE  # which bounds profiles too


class TooManyScans(ValueError):
    """A JPEG whose decoding would take a thousand times as long as that of a photograph."""


def open_image(
    source: Path | bytes | BinaryIO, formats: tuple[str, ...] = FORMATS, text: bool = False
) -> Image.Image:
    """Open a picture file as `Image.open` does, of which it raises the errors; the pixels are not
    decoded yet. Raises TooManyScans too.

    Without `text`, the text of a PNG is left out where it does not tell the picture's orientation.
    """
    content = source if isinstance(source, bytes) else _content(source)
    if content.startswith(_PNG_SIGNATURE):
        content = content if text else without_text(content)
    elif content.startswith(b"\xff\xd8") and scans_of(content) > MOST_SCANS:
        raise TooManyScans(f"a JPEG of more than {MOST_SCANS} scans")
    return Image.open(io.BytesIO(content), formats=formats)


def _content(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _content(file)
    source.seek(0)  # as Pillow does
    content = source.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(f"it is larger than {_LARGEST_FILE >> 20} MB")
    return content


def scans_of(jpeg: bytes) -> int:
    """How many scans a JPEG has, or a few more than MOST_SCANS; data behind its end does not
    count."""
    if jpeg.count(b"\xff\xda") <= MOST_SCANS:  # most often: the fast answer is an upper bound
        return jpeg.count(b"\xff\xda")
    scans = place = 0
    while scans <= MOST_SCANS and (marker_match := _MARKER.search(jpeg, place)):
        marker, place = marker_match[1][0], marker_match.end()
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker not in (_START_OF_IMAGE, _NO_LENGTH) and place + 2 <= len(jpeg):
            place += struct.unpack_from(">H", jpeg, place)[0]
    return scans


def without_text(png: bytes) -> bytes:
    """A PNG without its text chunks, of which Pillow refuses those that are long or many. Text that
    tells the orientation stays, unless it is too long; a profile too long to be used goes."""
    parts, start, place, view = [], 0, len(_PNG_SIGNATURE), memoryview(png)
    while place + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        end = min(place + 12 + length, len(png))
        if not _is_wanted(kind, view[place + 8 : place + 8 + length]):
            parts.append(view[start:place])
            start = end
        place = end
    return b"".join([*parts, view[start:]]) if parts else png


def _is_wanted(kind: bytes, data: memoryview) -> bool:
    if kind == b"iCCP":
        return _unpacks_within(LARGEST_PROFILE, kind, bytes(data))
    if kind not in _TEXT:
        return True
    name = bytes(data[:80]).partition(b"\0")[0]
    small = name in _ORIENTATION_IN_TEXT and len(data) <= _LARGEST_TEXT
    return small and _unpacks_within(_LARGEST_TEXT, kind, bytes(data))


def _unpacks_within(most: int, kind: bytes, data: bytes) -> bool:
    """Whether the compressed part of a chunk, if any, unpacks to no more than so many bytes."""
    rest = data.partition(b"\0")[2]
    packed = b""
    if kind in (b"zTXt", b"iCCP"):
        packed = rest[1:]  # behind the method
    elif kind == b"iTXt" and rest.startswith(b"\1"):
        packed = (
            rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        )  # behind the method and the language
    try:
        return len(zlib.decompressobj().decompress(packed, most + 1)) <= most
    except zlib.error:
        return True  # for Pillow, which passes over it
