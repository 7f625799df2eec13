"""The lines of a text file of any size, some at a time and in bounded memory. Knows nothing of what
they say."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO, NamedTuple

LONGEST_LINE = 16 << 20  # characters
_SHOWN_CHARS = 200
_MARKS = {  # byte order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Lines(NamedTuple):
    """Whole lines, each with its end as it is in the file; or the beginning of one that is too long
    to be read."""

    lines: list[str]
    cut: bool = False


def read_lines(stream: IO[bytes], block_bytes: int, longest: int = LONGEST_LINE) -> Iterator[Lines]:
    r"""All lines, about `block_bytes` at a time. They end with \n, \r or \r\n, as Python's files
    do.

    Memory is bounded by the block and the longest line.
    """
    rest, skipping = "", False
    for text in _decoded(stream, block_bytes):
        rest += text
        lines = io.StringIO(rest, newline="").readlines()
        # The end of the last line may be in the next block, also the second half of \r\n.
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
    """Text in UTF-8, or UTF-16 and UTF-32 as editors save them; a byte that does not fit becomes
    U+FFFD."""
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
    match [byte == 0 for byte in head]:  # letters of ASCII in UTF-16 without a mark
        case [False, True, False, True]:
            return "utf-16-le"
        case [True, False, True, False]:
            return "utf-16-be"
        case _:
            return "utf-8-sig"
