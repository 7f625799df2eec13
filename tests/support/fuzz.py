"""Damaged input for fuzz tests, commands run in this process, and bounds on their memory."""

from __future__ import annotations

import io
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

from hypothesis import strategies as st

from flows.cli.app import main
from pipeline.bench.measure import forget_peak, memory

# What parsers of our formats trip over, beside random bytes.
TOKENS = [
    *(
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud83d",
        b'"',
        b"'",
        b",",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\\",
    ),
    *(
        b"[",
        b"{",
        b"}",
        b"]",
        b":",
        b"&a ",
        b"*a",
        b"!!python/name:os.system ",
        b"- ",
        b"#",
        b"%",
        b"|",
    ),
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"9" * 400, b"[" * 3000, b"a" * 70_000),
    *(b"PK\x03\x04", b"\x93NUMPY", b"PAR1", b"\x1f\x8b", b"\x89PNG", b"\xff\xd8", b"BM", b"%!PS"),
    *((2**31 - 1).to_bytes(4, "little"), (2**63).to_bytes(8, "little"), b"\xff" * 8),
]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: its exit code, and all that it printed."""

    code: int
    output: str


def run_tld(*words: object) -> Ended:
    """Run a command in this process, as `main` does in its own."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    before = signal.getsignal(signal.SIGTERM), logging.raiseExceptions
    try:
        with redirect_stdout(output), redirect_stderr(output):
            main([str(word) for word in words])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        logging.raiseExceptions = before[1]
        signal.signal(signal.SIGTERM, before[0])
    return Ended(code, output.buffer.getvalue().decode("utf-8"))


def check_explained(ended: Ended) -> None:
    """A command did what was asked, or said in words what is wrong."""
    assert ended.code in (0, 1, 2), ended
    assert "tld: unexpected" not in ended.output, ended.output
    assert "Traceback" not in ended.output, ended.output


@contextmanager
def refused_only_by(kind: type[Exception], names: object = "") -> Iterator[None]:
    """The block ends well, or by this error, whose message names the thing at fault."""
    message = None
    try:
        yield
    except kind as error:
        message = str(error)
    assert message is None or (message and str(names) in message), message


@contextmanager
def bounded_memory(megabytes: int) -> Iterator[None]:
    """Fail where the block takes more memory of this process than that, at its peak."""
    forget_peak()
    before = memory().peak
    yield
    taken = (memory().peak - before) / 1e6
    assert taken < megabytes, f"took {taken:.0f} MB"


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with up to eight edits: bytes replaced, inserted, removed, repeated, or the rest cut
    off."""
    data = whole
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(1, 40))
        before, part, after = data[:at], data[at:end], data[end:]
        match draw(st.integers(0, 6)):
            case 0:
                data = before + bytes([draw(st.integers(0, 255))]) + part[1:] + after
            case 1:
                data = before + draw(st.binary(min_size=1, max_size=12)) + part + after
            case 2:
                data = before + draw(st.sampled_from(TOKENS)) + after
            case 3:
                data = before + draw(st.sampled_from(TOKENS)) + part + after
            case 4:
                data = before + after
            case 5:
                data = before + part + part + after
            case _ if draw(st.integers(0, 3)) == 0:
                data = before
    return data
