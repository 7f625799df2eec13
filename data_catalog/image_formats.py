"""Safe opening of image files: an allow-list of formats, and limits on costly file structures.

Without an allow-list Pillow passes some files to other programs (EPS to Ghostscript).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin

# The formats of images on the web, without formats that call other programs (EPS) or that nobody
# uses for photographs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
# Suffixes of images: of the formats that can be used, and of others, so that a file which cannot be
# used is counted with the reason and not passed over.
_SUFFIXES = (
    "jpg jpeg jpe jfif png apng gif webp bmp dib tif tiff avif avifs "
    "heic heif hif jp2 j2k jpx jxl ico icns svg psd tga dds exr hdr qoi "
    "pbm pgm ppm pnm pfm pcx sgi rgb ras xbm xpm eps fli flc im msp dcx cur blp ftex"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
# Scans of a JPEG. Progressive files have about ten, and each costs a pass over the whole image.
MOST_SCANS = 100
LARGEST_PROFILE = 4 << 20  # bytes of a colour profile; larger profiles are ignored

_LARGEST_FILE = 512 << 20
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
# Names of the text chunks from which Pillow reads the orientation.
_ORIENTATION_IN_TEXT = (b"Raw profile type exif", b"XML:com.adobe.xmp")
_LARGEST_TEXT = 1 << 20
# A JPEG marker, except those that occur inside a scan.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_START_OF_SCAN, _END_OF_IMAGE, _START_OF_IMAGE, _NO_LENGTH = 0xDA, 0xD9, 0xD8, 0x01

PngImagePlugin.MAX_TEXT_CHUNK = LARGEST_PROFILE  # Pillow applies it to profiles too


class TooManyScans(ValueError):
    """A JPEG that would take a thousand times as long to decode as a photograph."""


def is_image(suffix: str) -> bool:
    """Whether a suffix, without its dot, is that of an image."""
    return suffix.lower() in IMAGE_SUFFIXES


def open_image(
    source: Path | bytes | BinaryIO, formats: tuple[str, ...] = FORMATS, *, text: bool = False
) -> Image.Image:
    """Open an image file like `Image.open`, without decoding its pixels.

    Unless `text` is set, text chunks of a PNG are dropped, except those with the orientation.

    Raises:
        TooManyScans: the file is a JPEG with more than MOST_SCANS scans.
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: as `Image.open` does.
    """
    content = source if isinstance(source, bytes) else _content(source)
    if content.startswith(_PNG_SIGNATURE):
        content = content if text else without_text(content)
    elif content.startswith(b"\xff\xd8") and scans_of(content) > MOST_SCANS:
        raise TooManyScans(f"a JPEG with more than {MOST_SCANS} scans")
    return Image.open(io.BytesIO(content), formats=formats)


def _content(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _content(file)
    source.seek(0)  # as `Image.open` does
    content = source.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(f"it is larger than {_LARGEST_FILE >> 20} MB")
    return content


def scans_of(jpeg: bytes) -> int:
    """The number of scans in a JPEG, or any number above MOST_SCANS. Data after the end of the
    image does not count."""
    if jpeg.count(b"\xff\xda") <= MOST_SCANS:  # the usual case: a cheap upper bound is enough
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
    """A PNG without its text chunks, because Pillow refuses files with long or many ones.

    Text with the orientation stays unless it is too long. A colour profile that is too large is
    removed.
    """
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
    """Whether the compressed part of a chunk, if any, unpacks to at most `most` bytes."""
    rest = data.partition(b"\0")[2]
    packed = b""
    if kind in (b"zTXt", b"iCCP"):
        packed = rest[1:]  # after the compression method
    elif kind == b"iTXt" and rest.startswith(b"\1"):
        # After the compression method, the language and the translated keyword.
        packed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        return len(zlib.decompressobj().decompress(packed, most + 1)) <= most
    except zlib.error:
        return True  # Pillow skips a damaged chunk
