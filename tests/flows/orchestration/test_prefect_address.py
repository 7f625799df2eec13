"""A Prefect server that is given: what is wrong with it is said before anything begins."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flows.orchestration import prefect_address, prefect_watch
from flows.orchestration.prefect_address import answers, check_address
from flows.orchestration.prefect_server import free_port
from flows.orchestration.prefect_watch import watched
from flows.terminal.errors import UserError
from tests.support.command import CANARY
from tests.support.waiting import printed_until

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The API address of a server that answers all requests so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def says(status: int, body: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

    return answer


def asks_for_a_password(request: http.server.BaseHTTPRequestHandler) -> None:
    says(200, "true")(request) if request.path == "/api/health" else says(401, "{}")(request)


def drips(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    for _ in range(200):
        request.wfile.write(b" ")
        time.sleep(0.05)


def never(_: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(5)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says(404, "no"), "its /health returns 404"),
        (says(500, "no"), "its /health returns 500"),
        (says(200, "<html>a router's page</html>"), "another service"),
        (says(200, ""), "another service"),
        (says(401, "no"), "set PREFECT_API_AUTH_STRING to its user:password"),
        (asks_for_a_password, "set PREFECT_API_AUTH_STRING to its user:password"),
        (drips, "did not answer within"),
        (never, "did not answer within"),
    ],
)
def test_a_server_that_is_no_use_is_the_users_mistake(
    answer: Answer, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    monkeypatch.setattr(prefect_address, "_TIMEOUT_S", 0.5)
    with serving(answer) as api:
        message = mistake(monkeypatch, api)
        assert f"PREFECT_API_URL={api}" in message
        assert why in message


def mistake(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(UserError) as message:
        check_address(url)
    return str(message.value)


def test_a_wrong_password_is_told_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"me:{CANARY}")
    with serving(asks_for_a_password) as api:
        message = mistake(monkeypatch, api)
        assert "PREFECT_API_AUTH_STRING contains another one" in message
        assert CANARY not in message


def test_a_port_that_takes_connections_or_none_and_tls_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefect_address, "_TIMEOUT_S", 0.5)
    assert "no Prefect server answers" in mistake(
        monkeypatch, f"http://127.0.0.1:{free_port()}/api"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "did not answer within" in mistake(
            monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        )
    with serving(says(200, "true")) as api:
        assert "no Prefect server answers" in mistake(monkeypatch, api.replace("http:", "https:"))


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://127.0.0.1/api", "http://", "http://127.0.0.1:99999/api", "http://[/"]
)
def test_an_address_of_no_kind_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"PREFECT_API_URL={url}" in mistake(monkeypatch, url)


def test_other_prefect_settings_that_are_wrong_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "soon")
    with serving(says(200, "true")) as api:
        assert "PREFECT_ settings are invalid" in mistake(monkeypatch, api)


def test_silence_in_the_middle_of_a_run_is_told_once_and_its_end_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "_ASK_EVERY_S": 0.1,
        "_ASK_LIMIT_S": 0.1,
        "_SILENT_S": 0.3,
        "_WATCH_S": 0.02,
    }.items():
        monkeypatch.setattr(prefect_watch, name, value)
    is_silent = threading.Event()
    asked = threading.Semaphore(0)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.release()
        never(request) if is_silent.is_set() else says(200, "true")(request)

    with serving(answer) as api:
        monkeypatch.setenv("PREFECT_API_URL", api)
        with watched(api, lambda _: answers(1.0)):
            asked.acquire()
            is_silent.set()
            heard = printed_until(
                capsys, f"{api} does not answer; work that needs no Prefect continues"
            )
            is_silent.clear()
            heard += printed_until(capsys, f"{api} answers again")
    assert heard.count("does not answer") == 1
