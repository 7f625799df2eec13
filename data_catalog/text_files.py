"""Reading of text files in any Unicode encoding that editors write: UTF-8 with or without a
byte-order mark, or UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs
from pathlib import Path

# UTF-32 comes first because its little-endian mark begins with the mark of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LARGEST = 16 << 20


class TextFileError(ValueError):
    """A file is not text, cannot be read or is too large. The message names the file and the
    reason."""

    exit_code = 2


def read_text(path: Path, largest: int = _LARGEST) -> str:
    """The text of a file of at most `largest` bytes, which may be a pipe.

    Raises:
        TextFileError: the file cannot be read, is larger than `largest` bytes, or is not text; the
            message names the line of the first byte that is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise TextFileError(f"cannot read {path}: {reason}") from None
    if len(data) > largest:
        raise TextFileError(f"{path} is larger than {largest / 1e6:.0f} MB, which is the limit")
    try:
        return decode_text(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise TextFileError(
            f"{path} is not UTF-8 text (byte 0x{byte:02x} in line {line}); save it as UTF-8"
        ) from None


def decode_text(data: bytes) -> str:
    """Decode text by its byte-order mark, which is removed, or as UTF-8 without one. Raises
    UnicodeDecodeError if the bytes do not fit that encoding."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding)
