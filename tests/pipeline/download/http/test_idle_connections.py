"""Whose connections are used again: the same server's, for some seconds, within every limit."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.download.http import connections, idle_connections
from pipeline.download.http.connections import Connector
from pipeline.download.http.idle_connections import Peer
from pipeline.download.http.limits import UrlDeadline
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.shard_downloader import ShardDownloader
from tests.pipeline.download.http.test_connections import fail_at_first, shard_of
from tests.pipeline.download.http.test_opener import config, fetch, names
from tests.support import hostile
from tests.support.certificates import self_signed
from tests.support.scripted import HANG_UP, Script, answer, serve_scripted

__all__ = ["names"]  # a fixture


def named(path: str, _earlier: int) -> Script:
    """A body that names the path."""
    return [answer(path.encode())]


def always(script: Script) -> Callable[[str, int], Script]:
    return lambda _path, _earlier: script


def test_threads_that_share_connections_get_their_own_bodies() -> None:
    paths = [f"/{number}" for number in range(200)]
    with serve_scripted(named) as server, ThreadPoolExecutor(8) as threads:
        opener = GuardedOpener(config(requests_per_host=8))
        bodies = list(threads.map(lambda path: fetch(server.address + path, opener), paths))
        assert bodies == [path.encode() for path in paths]
        assert sorted(server.asked) == sorted(paths)
        assert len(server.connections) <= 8


def test_a_server_that_closes_without_saying_so_is_asked_once_for_each_url() -> None:
    paths = [f"/{number}" for number in range(50)]
    with serve_scripted(lambda path, _: [*named(path, 0), HANG_UP]) as server:
        opener = GuardedOpener(config())
        assert [fetch(server.address + path, opener) for path in paths] == [
            path.encode() for path in paths
        ]
        assert server.asked == paths


def test_tls_connections_are_reused_for_their_name_alone(
    tmp_path: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(["a.test", "b.test"], tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names |= {f"{letter}.test": ["127.0.0.1"] for letter in "abc"}
    with serve_scripted(named, certificate=certificate) as server:
        opener = GuardedOpener(config())
        for _ in range(3):
            assert fetch(f"https://a.test:{server.port}/a", opener) == b"/a"
            assert fetch(f"https://b.test:{server.port}/b", opener) == b"/b"
            assert fetch(f"https://c.test:{server.port}/c", opener) == "TLS error"
        assert [paths for paths in server.connections if paths] == [["/a"] * 3, ["/b"] * 3]


def test_tls_is_ended_without_warning_and_without_loss(
    tmp_path: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(["a.test"], tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names |= {"a.test": ["127.0.0.1"]}
    ends: list[Script] = [[answer(b"x"), HANG_UP], [answer(b"x") + answer(b"surplus")]]
    for end in ends:
        with serve_scripted(always(end), certificate=certificate) as server:
            opener = GuardedOpener(config())
            for number in range(5):
                assert fetch(f"https://a.test:{server.port}/{number}", opener) == b"x"
            assert server.asked == [f"/{number}" for number in range(5)]


def test_a_connection_belongs_to_the_address_that_its_name_has_now(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.download.http.addresses._CACHE_S", 0.0)
    with serve_scripted(named, "0.0.0.0") as server:
        url, opener = f"http://moving.test:{server.port}/x", GuardedOpener(config())
        for address, expected in [
            ("127.0.0.1", b"/x"),
            ("10.0.0.1", "address is not public"),
            ("127.0.0.2", b"/x"),
        ]:
            names["moving.test"] = [address]
            assert fetch(url, opener) == expected
        assert server.connections == [["/x"], ["/x"]]


def test_redirects_reuse_the_connections_of_their_hosts(names: dict[str, list[str]]) -> None:
    names |= {"one.test": ["127.0.0.1"], "two.test": ["127.0.0.2"]}
    with serve_scripted(named, "127.0.0.2") as other:

        def redirect(path: str, _: int) -> Script:
            to = f"http://two.test:{other.port}/there" if path == "/away" else "/here"
            return (
                named(path, 0) if path == "/here" else [answer(b"", "302 Found", f"Location: {to}")]
            )

        with serve_scripted(redirect) as server:
            opener = GuardedOpener(config())
            for _ in range(3):
                assert fetch(f"http://one.test:{server.port}/near", opener) == b"/here"
                assert fetch(f"http://one.test:{server.port}/away", opener) == b"/there"
            assert server.connections == [["/near", "/here", "/away"] * 3]
            assert other.connections == [["/there"] * 3]


def test_requests_on_one_connection_count_against_the_rate(names: dict[str, list[str]]) -> None:
    names |= {f"name{number}.test": ["127.0.0.1"] for number in range(2)}
    with serve_scripted(named) as server:
        opener = GuardedOpener(config(host_requests_per_s=20))
        started = time.monotonic()
        for number in range(11):  # of each name half of them: the rate of the address counts
            assert fetch(f"http://name{number % 2}.test:{server.port}/x", opener) == b"/x"
        assert time.monotonic() - started >= 0.49, "ten intervals of 50 ms"
        assert len(server.connections) < 11


@pytest.mark.parametrize(
    ("changed", "addresses"), [({"requests_per_host": 3}, 1), ({"threads": 4}, 20)]
)
def test_idle_connections_count_towards_those_of_an_address_and_of_the_process(
    names: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, int],
    addresses: int,
) -> None:
    names |= {f"name{i}.test": [f"127.0.0.{1 + i % addresses}"] for i in range(20)}
    opened, most_open, connect = list[socket.socket](), 0, Connector._open

    def counted(self: Connector, peer: Peer, deadline: UrlDeadline) -> socket.socket:
        nonlocal most_open
        opened.append(connect(self, peer, deadline))
        most_open = max(most_open, sum(one.fileno() >= 0 for one in opened))
        return opened[-1]

    monkeypatch.setattr(Connector, "_open", counted)
    with serve_scripted(named, "0.0.0.0") as server, ThreadPoolExecutor(8) as threads:
        opener = GuardedOpener(config(**changed))
        urls = [f"http://name{i // 10 % 20}.test:{server.port}/x" for i in range(200)]
        assert set(threads.map(lambda url: fetch(url, opener), urls)) == {b"/x"}
    assert most_open == next(iter(changed.values()))
    assert len(opened) < len(urls)


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve_scripted(named) as server:
        opener = GuardedOpener(config())
        assert fetch(f"{server.address}/1", opener) == b"/1"
        monkeypatch.setattr(idle_connections, "_MAX_IDLE_S", 0.0)
        assert fetch(f"{server.address}/2", opener) == b"/2"
        assert server.connections == [["/1"], ["/2"]]


def test_a_shortage_closes_what_is_idle(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]
) -> None:
    names |= {f"name{number}.test": [f"127.0.0.{number + 1}"] for number in range(6)}
    monkeypatch.setattr(connections, "_PAUSE_S", 0.2)
    with serve_scripted(named, "0.0.0.0") as server:
        opener = GuardedOpener(config())
        for number in range(5):
            assert fetch(f"http://name{number}.test:{server.port}/x", opener) == b"/x"
        assert server.open == 5
        fail_at_first(monkeypatch, "socket.socket", OSError(errno.EMFILE, "said the system"), 1)
        assert fetch(f"http://name5.test:{server.port}/x", opener) == b"/x"
        assert server.open == 1, "all idle ones were closed during the pause"


def test_the_end_of_a_shard_closes_its_connections(tmp_path: Path) -> None:
    body = hostile.picture()
    with serve_scripted(always([answer(body)])) as server:
        downloader = ShardDownloader(config(image_size=64), tmp_path, "")
        urls = [f"{server.address}/{number}" for number in range(20)]
        assert downloader(shard_of(urls)).rows == 20
        assert server.wait_until_all_are_closed()
        assert len(server.connections) <= 8


def test_a_request_that_outlives_its_shard_leaves_no_connection() -> None:
    with serve_scripted(lambda path, _: [0.3, answer(path.encode())]) as server:
        opener = GuardedOpener(config())
        with ThreadPoolExecutor(1) as thread:
            late = thread.submit(fetch, f"{server.address}/late", opener)
            while not server.asked:
                time.sleep(0.01)
            opener.end_shard()
            opener.start_shard()
            assert late.result() == b"/late"
        assert server.wait_until_all_are_closed()
