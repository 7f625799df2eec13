"""Own servers on loopback are asked directly, whatever proxies the environment names."""

from __future__ import annotations

import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator

import httpx
import pytest
import requests
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from flows.orchestration.prefect_api import is_healthy
from flows.orchestration.proxies import bypass_proxies_on_loopback, unusable_proxies

NOBODY = "http://127.0.0.1:9"
NAMES = [
    variant
    for name in ("http_proxy", "https_proxy", "all_proxy")
    for variant in (name, name.upper())
]


@pytest.fixture
def api() -> Iterator[str]:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.parametrize(
    "variables", [{}, {"no_proxy": "example.org"}, {"NO_PROXY": "*"}, {"NO_PROXY": "a.b, c.d"}]
)
def test_every_client_asks_loopback_directly(
    api: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**dict.fromkeys(NAMES, NOBODY), **variables}.items():
        monkeypatch.setenv(name, value)
    bypass_proxies_on_loopback()
    bypassed = os.environ["NO_PROXY"]
    bypass_proxies_on_loopback()
    assert os.environ["NO_PROXY"] == bypassed, "once is enough"
    assert next(iter(variables.values()), "") in bypassed
    for address in (f"{api}/health", f"{api}/health".replace("127.0.0.1", "localhost")):
        assert httpx.get(address).text == "true"
        assert requests.get(address, timeout=10).text == "true"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.read() == b"true"
        assert get_proxy(parse_uri(address.replace("http:", "ws:"))) is None
    assert is_healthy(api, 10)


def test_the_check_of_our_own_server_knows_no_proxy_at_all(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in NAMES:
        monkeypatch.setenv(name, NOBODY)
    assert is_healthy(api, 10)


def test_a_proxy_that_no_client_can_use_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    assert unusable_proxies() == ["ALL_PROXY"]
