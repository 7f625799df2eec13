"""Connections that send nothing, send slowly or read nothing; and HTTP as monitors and load
balancers speak it."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flows.serve.app import Service, image_service
from flows.serve.card import Card
from flows.serve.connections import MOST_CONNECTIONS, LimitedProtocol, connection_limit
from flows.serve.guard import Access, read_access
from flows.terminal.errors import UserError
from tests.support.live import ask, live
from tests.support.served import served_model
from tld_model.config import SamplingSettings


class Impatient(LimitedProtocol):
    most = 8
    request_head_s = 0.2
    send_s = 0.2


class Small(LimitedProtocol):
    most = 8
    request_head_s = 60


def service() -> Service:
    card = Card(
        name="t",
        model={},
        data={},
        encoders={},
        sampling={},
        scores={},
        edge=8,
        multiple=4,
        example="",
    )
    model = served_model(lambda _, __: [np.zeros((1, 8, 8, 3), np.uint8)], card, SamplingSettings())
    return image_service(model, Access(), 16)


@pytest.fixture
def impatient() -> Iterator[int]:
    with live(service(), Impatient) as port:
        yield port


@pytest.fixture(scope="module")
def small() -> Iterator[int]:
    with live(service(), Small) as port:
        yield port


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


BEGUN = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-a: "
PAGE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", BEGUN, b"G"])
def test_a_request_that_does_not_come_is_not_waited_for(impatient: int, sent: bytes) -> None:
    assert all_of(connect(impatient, sent)) == b""


def test_further_bytes_give_no_more_time_and_a_second_request_has_the_same_limit(
    impatient: int,
) -> None:
    connection = connect(impatient, WHOLE + BEGUN)
    with contextlib.suppress(OSError):
        for _ in range(10_000):
            connection.sendall(b"b")
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65536):
                    break
        else:
            pytest.fail("the server still reads")
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [b"", BEGUN, b"POST /pictures HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"],
)
def test_others_are_served_while_many_connections_wait(small: int, sent: bytes) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(small, sent)) for _ in range(40)]
        for _ in range(3):
            assert ask(small, "GET", "/healthz").status == 200
        for oldest in waiting[: 40 - Small.most]:
            assert all_of(oldest) == b"", "it made room"


def test_an_answer_that_is_not_read_is_not_waited_for() -> None:
    ended = threading.Event()

    class Watched(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    with live(service(), Watched) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.sendall(PAGE * 1000)
        assert ended.wait(20)


def test_descriptors_are_raised_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.append(given))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_000_000))
    assert connection_limit() == MOST_CONNECTIONS
    assert limits[0][0] > MOST_CONNECTIONS
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert 0 < connection_limit() < 1024 - 64
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(UserError, match="ulimit -n"):
        connection_limit()


def test_head_is_answered_as_get_without_the_body(small: int) -> None:
    for path in ("/", "/healthz", "/readyz", "/card", "/metrics", "/openapi.json"):
        head, get = (ask(small, method, path) for method in ("HEAD", "GET"))
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    refused = ask(small, "PUT", "/healthz")
    assert (refused.status, refused.headers["allow"]) == (405, "GET")


def test_a_load_balancer_may_name_no_host_or_an_address(small: int) -> None:
    for path in ("/healthz", "/readyz"):
        assert ask(small, "GET", path, headers={"Host": "10.0.0.7:8000"}).status == 200
        assert all_of(connect(small, f"GET {path} HTTP/1.0\r\n\r\n".encode())).startswith(
            b"HTTP/1.1 200 "
        )
    assert ask(small, "GET", "/metrics", headers={"Host": "10.0.0.7:8000"}).status == 421


def test_two_lengths_of_one_body_end_the_connection(small: int) -> None:
    head = (
        b"POST /pictures HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = all_of(connect(small, head + b"0\r\n\r\n" + WHOLE))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_token_file_that_others_can_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("a-token-that-nobody-guesses")
    for mode, warned in ((0o600, False), (0o644, True)):
        tokens.chmod(mode)
        read_access("127.0.0.1", tokens)
        assert ("can read --token-file" in capsys.readouterr().err) is warned
