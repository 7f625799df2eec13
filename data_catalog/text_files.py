"""Text files that people write: decoded as whatever editor saved them, UTF-8 with or without a
byte-order mark, or UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs
from pathlib import Path

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LARGEST = 16 << 20


class TextFileError(ValueError):
    """A file that is no text, cannot be read or is too large; the message says which and why."""

    exit_code = 2


def read_text(path: Path, largest: int = _LARGEST) -> str:
    """The text of a file of at most `largest` bytes. A pipe will do.

    Raises:
        TextFileError: names the file, and the line of the first byte that is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise TextFileError(f"cannot read {path}: {reason}") from None
    if len(data) > largest:
        raise TextFileError(f"{path} is larger than {largest / 1e6:.0f} MB, too large for this")
    try:
        return decode_text(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise TextFileError(
            f"{path} is not UTF-8 text (byte 0x{byte:02x} in line {line}); save it as UTF-8"
        ) from None


def decode_text(data: bytes) -> str:
    """Text with its byte-order mark obeyed and removed, UTF-8 without one. Raises
    UnicodeDecodeError."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding)
