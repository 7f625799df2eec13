"""Which responses leave a connection that may be used again, and that no other is, on a server
that sends them byte for byte."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.download.http.limits import BoundedStream, UrlDeadline
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.http.responses import Response
from tests.pipeline.download.http.test_opener import config, fetch
from tests.support.scripted import HANG_UP, Script, Scripted, answer, serve_scripted

IMAGE = b"the bytes of an image"
LARGE = bytes(300_000)
FOREIGN = answer(b"of somebody else")  # a whole response, where none is expected
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def scripted(first: Script) -> Callable[[str, int], Script]:
    """Serve /first as the test says, and an image elsewhere."""
    return lambda path, _: first if path == "/first" else [answer(IMAGE)]


def fetch_twice(server: Scripted, **changed: Any) -> tuple[bytes | str, bytes | str]:
    opener = GuardedOpener(config(**changed))
    return fetch(f"{server.address}/first", opener), fetch(f"{server.address}/second", opener)


CERTAIN: dict[str, tuple[Script, bytes | str]] = {
    "with a length": ([answer(LARGE)], LARGE),
    "empty": ([answer(b"")], b""),
    "in pieces": ([answer(IMAGE)[:50], 0.05, answer(IMAGE)[50:]], IMAGE),
    "chunked": ([CHUNKED + b"\r\n5\r\nimage\r\n0\r\n\r\n"], b"image"),
    "chunked, with extension and trailer": (
        [CHUNKED + b"\r\n5;a=b\r\nimage\r\n0\r\nX-Trailer: 1\r\n\r\n"],
        b"image",
    ),
    "chunked, the end later": ([CHUNKED + b"\r\n5\r\nimage\r\n", 0.05, b"0\r\n\r\n"], b"image"),
    "after interim ones": (
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + answer(IMAGE)],
        IMAGE,
    ),
    "missing": ([answer(b"not here", "404 Not Found")], "HTTP 404"),
    "missing, chunked": (
        [CHUNKED.replace(b"200 OK", b"404 No") + b"\r\n2\r\nno\r\n0\r\n\r\n"],
        "HTTP 404",
    ),
    "too many": ([answer(b"slower", "429 Too Many Requests")], "HTTP 429"),
    "unavailable": ([answer(b"later", "503 Service Unavailable")], "HTTP 503"),
    "opted out": (
        [answer(IMAGE, "200 OK", "X-Robots-Tag: noai")],
        "opted out of machine learning",
    ),
}


@pytest.mark.parametrize("case", CERTAIN)
def test_a_response_with_a_certain_end_leaves_its_connection_to_the_next(case: str) -> None:
    first, expected = CERTAIN[case]
    with serve_scripted(scripted(first)) as server:
        assert fetch_twice(server) == (expected, IMAGE)
        assert server.connections == [["/first", "/second"]]
        assert not [head for head in server.heads if b"onnection" in head]


UNCERTAIN: dict[str, tuple[Script, bytes | str]] = {
    "the last": ([answer(IMAGE, "200 OK", "Connection: close")], IMAGE),
    "HTTP/1.0": ([answer(IMAGE).replace(b"HTTP/1.1", b"HTTP/1.0")], IMAGE),
    "HTTP/1.0, with Keep-Alive": (
        [answer(IMAGE, "200 OK", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")],
        IMAGE,
    ),
    "without a length": ([b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE, HANG_UP], IMAGE),
    "surplus": ([answer(IMAGE) + b"surplus"], IMAGE),
    "surplus behind a large body": ([answer(LARGE) + b"surplus"], LARGE),
    "surplus behind chunks": ([CHUNKED + b"\r\n1\r\nx\r\n0\r\n\r\n" + FOREIGN], b"x"),
    "surplus that is a response": ([answer(IMAGE) + FOREIGN], IMAGE),
    "surplus behind a failure": ([answer(b"no", "404 Not Found") + FOREIGN], "HTTP 404"),
    "a length too small": ([answer(b"")[:-2].replace(b": 0", b": 2") + b"\r\n12345"], b"12"),
    "a length too large": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + IMAGE, HANG_UP],
        "connection reset",
    ),
    "a failure with a length too large": (
        [b"HTTP/1.1 404 No\r\nContent-Length: 99\r\n\r\n" + IMAGE, HANG_UP],
        "HTTP 404",
    ),
    "cut off in a chunk": ([CHUNKED + b"\r\n99\r\nimage", HANG_UP], "connection reset"),
    "two lengths": ([answer(b"12345", "200 OK", "Content-Length: 2")], b"12345"),
    "a length that is no number": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n12"],
        b"12",
    ),
    "length and chunks": (
        [CHUNKED + b"Content-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n"],
        b"x",
    ),
    "coding and chunks": (
        [CHUNKED.replace(b"chunked", b"gzip, chunked") + b"Content-Length: 2\r\n\r\nxy"],
        b"xy",
    ),
    "headers that are none": ([answer(IMAGE, "200 OK", "this is no header")], IMAGE),
    "another protocol": ([answer(b"", "101 Switching Protocols")], "HTTP 101"),
    "large failure": ([answer(LARGE, "404 Not Found")], "HTTP 404"),
    "slow failure": ([answer(b"no", "404 Not Found")[:-1], 1.0, b"o"], "HTTP 404"),
    "large, and opted out": (
        [answer(LARGE, "200 OK", "X-Robots-Tag: noai")],
        "opted out of machine learning",
    ),
    "too large": ([answer(LARGE)], "body too large"),
    "of a coding": ([answer(LARGE, "200 OK", "Content-Encoding: br")], "unwanted content encoding"),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_after_any_other_response_the_connection_is_not_used_again(case: str) -> None:
    first, expected = UNCERTAIN[case]
    changed = {"max_body_mb": 0.1} if expected == "body too large" else {}
    with serve_scripted(scripted(first)) as server:
        assert fetch_twice(server, **changed) == (expected, IMAGE)
        assert server.connections == [["/first"], ["/second"]]


def test_bytes_that_come_later_are_no_answer_to_the_next_request() -> None:
    for late in (b"surplus", FOREIGN):
        with serve_scripted(scripted([answer(IMAGE), 0.1, late])) as server:
            opener = GuardedOpener(config())
            assert fetch(f"{server.address}/first", opener) == IMAGE
            time.sleep(0.4)
            assert fetch(f"{server.address}/second", opener) == IMAGE
            assert server.connections == [["/first"], ["/second"]]


STALE: dict[str, Script] = {
    "ended": [HANG_UP],
    "garbage before the answer": [b"\x00\xff no HTTP\r\n\r\n" + answer(IMAGE)],
    "timed out": [answer(b"", "408 Request Timeout"), HANG_UP],
}


@pytest.mark.parametrize("case", STALE)
def test_a_reused_connection_that_was_stale_costs_nothing(case: str) -> None:
    """The server ends it while the request is under way."""
    with serve_scripted(lambda _, earlier: STALE[case] if earlier else [answer(IMAGE)]) as server:
        assert fetch_twice(server, retries=0) == (IMAGE, IMAGE)
        assert server.connections == [["/first", "/second"], ["/second"]]


@pytest.mark.parametrize("case", STALE)
def test_only_a_reused_connection_is_thought_to_be_stale(case: str) -> None:
    with serve_scripted(
        lambda path, _: STALE[case] if path == "/second" else [answer(IMAGE)]
    ) as server:
        expected = {"ended": "connection reset", "timed out": "HTTP 408"}
        outcomes = fetch_twice(server, retries=0)
        assert outcomes == (IMAGE, expected.get(case, "not valid HTTP"))
        assert server.connections == [["/first", "/second"], ["/second"]], "once again, and no more"


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_reused_connection_that_drips_costs_a_url_its_time_only(where: str) -> None:
    whole = answer(bytes(60))
    start = 0 if where == "headers" else whole.index(b"\r\n\r\n") + 4
    drips = [step for byte in whole[start:] for step in (bytes([byte]), 0.1)]
    script = [whole[:start], *drips]
    with serve_scripted(lambda path, _: script if path == "/second" else [answer(IMAGE)]) as server:
        assert fetch_twice(server, url_deadline_s=1, timeout_s=0.8) == (IMAGE, "timed out")
        assert server.connections == [["/first", "/second"]]


def test_a_response_can_be_closed_after_its_reader() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        response = Response(BoundedStream(ours, UrlDeadline(1, 1)))
        response.fp.close()  # as the collector of garbage may do
        response.close()
    assert response.isclosed()
