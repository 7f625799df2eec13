"""What a web page in a browser of this machine can ask our Prefect server for: nothing."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from flows.orchestration.prefect_app import PrefectGuard, login_link
from flows.orchestration.prefect_server import free_port, server_command, server_environment
from tests.support.browser import chromium, needs_browser
from tests.support.prefect_api import wait_for
from tests.support.waiting import is_answering

OURS = "http://127.0.0.1:5001"
SOCKET = "ws://127.0.0.1:5001/api/events/in"


@pytest.fixture
def client() -> TestClient:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("answered")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("answered")
        await socket.close()

    every = Route("/{path:path}", answer, methods=["GET", "POST", "OPTIONS", "PUT", "DELETE"])
    app = Starlette(routes=[WebSocketRoute("/api/events/in", talk), every])
    return TestClient(PrefectGuard(app, 5001), base_url=OURS)


STRANGE = [
    {"Host": "evil.example"},
    {"Host": "evil.example:5001"},
    {"Host": "127.0.0.1"},
    {"Host": "127.0.0.1:5000"},
    {"Host": "127.0.0.1:5001.evil.example"},
    {"Host": "me@127.0.0.1:5001"},
    {"Host": "[::1]:5001"},
    {"Host": "0.0.0.0:5001"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:5000"},
    {"Origin": "https://127.0.0.1:5001"},
    {"Origin": "http://127.0.0.1:5001.evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", STRANGE)
def test_what_a_page_of_another_origin_sends_is_refused(
    client: TestClient, headers: dict[str, str]
) -> None:
    for method in ("GET", "POST", "OPTIONS", "PUT", "DELETE"):
        answer = client.request(method, "/api/deployments/filter", headers=headers)
        assert answer.status_code == 403
        assert "answered" not in answer.text
        assert "access-control-allow-origin" not in answer.headers
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(SOCKET, headers={**headers}):
        """Never open."""


def test_a_request_that_names_no_host_is_refused() -> None:
    sent: list[Message] = []

    async def never(*_: object) -> Any:
        raise AssertionError("it was let through")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/flows",
        "headers": [],
    }  # as HTTP/1.0 allows
    asyncio.run(PrefectGuard(never, 5001)(scope, never, send))
    assert sent[0]["status"] == 403


def test_several_origins_or_hosts_are_no_way_around(client: TestClient) -> None:
    for name, values in (
        ("Origin", (OURS, "http://evil.example")),
        ("Host", ("127.0.0.1:5001", "evil.example")),
    ):
        assert (
            client.get("/api/flows", headers=[(name, value) for value in values]).status_code == 403
        )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": OURS, "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost:5001"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_clients_and_its_own_page_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/api/deployments/filter", headers=headers)
    assert answer.text == "answered"
    assert answer.headers["X-Frame-Options"] == "DENY"
    with client.websocket_connect(SOCKET, headers={**headers}) as socket:
        assert socket.receive_text() == "answered"


def test_a_link_elsewhere_opens_the_page_but_asks_the_api_nothing(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/runs", headers=link).text == "answered"
    assert client.get("/api/flows", headers=link).status_code == 403


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """Port and secret of a real one, with its page."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = server_environment(home, port, ui=True)
    with subprocess.Popen(server_command(port), env=environment) as process:
        try:
            wait_for(lambda: is_answering(f"http://127.0.0.1:{port}/api/health"))
            yield port, environment["PREFECT_SERVER_API_AUTH_STRING"]
        finally:
            process.terminate()


@pytest.mark.slow
def test_without_the_secret_prefect_does_nothing(server: tuple[int, str]) -> None:
    port, secret = server
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api") as client:
        assert client.get("/admin/version").status_code == 401
        assert client.get("/admin/version", auth=("tld", "another")).status_code == 401
        assert client.post("/deployments/filter", json={}).status_code in (401, 403)
        user, _, password = secret.partition(":")
        assert client.get("/admin/version", auth=(user, password)).status_code == 200
        assert (
            client.post("/deployments/filter", json={}, auth=(user, password)).status_code == 403
        ), "no CSRF token"


ATTACK = """<script>
const api = API, results = {};
const attempt = async (name, what) => { try { results[name] = await what(); } catch (e) { results[name] = "error"; } };
const post = (type, mode) => () => fetch(api + "/flows/", {method: "POST", mode: mode, credentials: "include",
  headers: {"Content-Type": type}, body: JSON.stringify({name: "evil-" + type + mode})}).then(r => r.text());
const socket = () => new Promise((done, failed) => {
  const s = new WebSocket(api.replace("http", "ws") + "/events/in", ["prefect"]);
  s.onopen = () => done("open"); s.onerror = () => failed(); });
(async () => {
  await attempt("json", post("application/json", "cors"));
  await attempt("text", post("text/plain", "cors"));
  await attempt("blind", post("text/plain", "no-cors"));
  await attempt("read", () => fetch(api + "/admin/version").then(r => r.text()));
  await attempt("health", () => fetch(api + "/health").then(r => r.text()));
  await attempt("socket", socket);
  document.title = JSON.stringify(results);
})();
</script><iframe src="PAGE"></iframe>"""


@pytest.mark.slow
@needs_browser
def test_a_browser_lets_in_whoever_has_the_link_and_no_page_of_another_origin(
    server: tuple[int, str],
) -> None:
    from playwright.sync_api import expect

    port, secret = server
    ours = f"http://127.0.0.1:{port}"
    attack = ATTACK.replace("API", json.dumps(f"{ours}/api")).replace("PAGE", ours).encode()

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(attack)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil, chromium() as browser:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(login_link(port, secret))
        expect(page.get_by_role("link", name="Deployments").first).to_be_visible(timeout=60_000)
        assert secret.partition(":")[2] not in page.url

        other = context.new_page()  # the user's own browser, logged in
        for host in ("127.0.0.1", "localhost"):
            other.goto(f"http://{host}:{evil.server_port}/")
            other.wait_for_function("document.title !== ''")
            results = json.loads(other.title())
            assert results.pop("blind") == ""  # a page may send it, and never sees the answer
            assert set(results.values()) == {"error"}
            assert [frame.url for frame in other.frames[1:]] == ["chrome-error://chromewebdata/"]
        evil.shutdown()
    user, _, password = secret.partition(":")
    known = httpx.get(f"{ours}/api/flows/name/evil-text/plainno-cors", auth=(user, password))
    assert known.status_code == 404


def test_each_server_has_a_secret_of_its_own_and_no_setting_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {
        "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///mine.db",
        "PREFECT_SERVER_DATABASE_HOST": "db.example",
        "prefect_server_api_base_path": "/elsewhere",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
        "PREFECT_PROFILES_PATH": "/home/me/profiles.toml",
        "PREFECT_PROFILE": "cloud",
        "PREFECT_HOME": "/home/me/.prefect",
        "PREFECT_API_URL": "https://prefect.example/api",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    first, second = (server_environment(tmp_path, 5001, ui=False) for _ in range(2))
    assert not [name for name, value in theirs.items() if first.get(name) == value]
    assert first["PREFECT_HOME"] == str(tmp_path)
    secrets = {one["PREFECT_SERVER_API_AUTH_STRING"] for one in (first, second)}
    assert len(secrets) == 2
    assert all(len(secret) > 40 for secret in secrets)
    assert {name: os.environ[name] for name in theirs} == theirs
