"""Reading of lines from text files of any size, in blocks and in bounded memory."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO, NamedTuple

LONGEST_LINE = 16 << 20  # characters
_SHOWN_CHARS = 200
_MARKS = {  # byte-order marks; UTF-32 comes first because its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Lines(NamedTuple):
    """Whole lines with their line endings, or (`cut`) the beginning of one line that is too long to
    be read."""

    lines: list[str]
    cut: bool = False


def read_lines(stream: IO[bytes], block_bytes: int, longest: int = LONGEST_LINE) -> Iterator[Lines]:
    r"""All lines, about `block_bytes` at a time. A line ends with \n, \r or \r\n, as in Python.

    Memory is bounded by the block size and the longest line.
    """
    rest, skipping = "", False
    for text in _decoded(stream, block_bytes):
        rest += text
        lines = io.StringIO(rest, newline="").readlines()
        # The last line, or the second half of its \r\n, may end in the next block.
        rest = "" if not lines or lines[-1].endswith("\n") else lines.pop()
        if skipping and lines:
            del lines[0]
            skipping = False
        if lines:
            yield Lines(lines)
        if skipping:
            rest = rest[-1:]
        elif len(rest) > longest:
            yield Lines([rest[:_SHOWN_CHARS]], cut=True)
            rest, skipping = rest[-1:], True
    if rest and not skipping:
        yield Lines([rest])


def _decoded(stream: IO[bytes], block_bytes: int) -> Iterator[str]:
    """Decode UTF-8, or UTF-16 and UTF-32 as editors save them. Invalid bytes become U+FFFD."""
    head = b""
    while len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    decoder = codecs.getincrementaldecoder(_encoding(head))("replace")
    yield decoder.decode(head)
    while block := stream.read(block_bytes):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _encoding(head: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)
    if marked or len(head) < 4:
        return marked or "utf-8-sig"
    match [byte == 0 for byte in head]:  # ASCII letters in UTF-16 without a mark
        case [False, True, False, True]:
            return "utf-16-le"
        case [True, False, True, False]:
            return "utf-16-be"
        case _:
            return "utf-8-sig"
