"""Small files that cost a decoder much."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

from PIL import Image


def jpeg_of_scans(scans: int, edge: int = 2048) -> bytes:
    """A grey progressive JPEG: each scan says of every block, in few bytes, that nothing
    changes."""
    blocks = (edge // 8) ** 2
    empty = bytes([1, 1, 0x00, 1, 63, 0])
    runs = "".join(
        "0" + format(min(left, 32767) - 16384, "014b") for left in range(blocks, 16383, -32767)
    )
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + b"\1" * 64),
        _segment(0xC2, struct.pack(">BHHB", 8, edge, edge, 1) + bytes([1, 0x11, 0])),
        _segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00"),
        _segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0"),
        _segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])) + bytes(blocks // 8),
        (_segment(0xDA, empty) + _bits(runs)) * (scans - 1),
        b"\xff\xd9",
    ]
    return b"".join(parts)


def webp_of_megapixels(edge: int = 8000) -> bytes:
    """One colour: a few thousand bytes that unpack to 4 for each pixel, several times over."""
    content = io.BytesIO()
    Image.new("RGB", (edge, edge), "red").save(content, "WEBP", lossless=True, quality=0, method=0)
    return content.getvalue()


def png(
    edge: int, depth: int, colour: int, row: bytes, chunks: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of equal rows, with chunks of any kind before its pixels."""
    header = struct.pack(">IIBBBBB", edge, edge, depth, colour, 0, 0, 0)
    body = [
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress((b"\0" + row) * edge)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def _bits(text: str) -> bytes:
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\x00")
