"""Whom a failure counts against: the host that caused it, an address however many names it has, or
this machine."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_catalog.url_table.table import UrlShard
from pipeline.compute.resource_limits import (
    Shortage,
    descriptor_limit,
    free_descriptors,
    raise_descriptor_limit,
)
from pipeline.download.http import connections
from pipeline.download.http.addresses import shared_by
from pipeline.download.http.connections import Slots
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.http.rate_limiter import HostRateLimiter, HostUnavailable, Route
from pipeline.download.shard_downloader import ShardDownloader
from pipeline.stages.contract import StageFailed
from tests.pipeline.download.http.test_opener import config, fetch, names
from tests.support import hostile
from tests.support.hostile import Hostile

__all__ = ["names"]  # a fixture


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with hostile.serve_hostile() as server:
        yield server


def shard_of(urls: list[str]) -> UrlShard:
    return UrlShard(
        0, pa.table({"url": urls, "caption": ["a caption"] * len(urls), "split": [""] * len(urls)})
    )


@pytest.mark.parametrize("at", ["/silent", "port that never answers"])
def test_redirects_cost_the_host_that_they_lead_to_nothing(
    server: Hostile, names: dict[str, list[str]], tmp_path: Path, at: str
) -> None:
    port = server.address.rsplit(":")[-1]
    names |= {"good.test": ["127.0.0.1"], **{f"evil{i}.test": ["127.0.0.1"] for i in range(3)}}
    with hostile.never_accepting() as nobody:
        to = (
            f"good.test:{port}/silent" if at == "/silent" else f"good.test:{nobody.rsplit(':')[-1]}"
        )
        urls = [f"http://evil{i % 3}.test:{port}/redirect?to=http://{to}/{i}" for i in range(40)]
        urls += [f"http://good.test:{port}/picture/{i}" for i in range(20)]
        settings = config(
            image_size=64, shard_size=60, url_deadline_s=4, timeout_s=0.4, requests_per_host=4
        )
        receipt = ShardDownloader(settings, tmp_path, "")(shard_of(urls))
    assert receipt.rows == 20


def test_each_route_to_a_host_has_its_own_circuit_breaker() -> None:
    limiter = HostRateLimiter(at_once=2, per_s=None, wait_budget_s=10, brisk_s=1)
    routes = [
        Route("good", 80),
        Route("good", 81),
        Route("good", 80, "evil"),
        Route("good", 80, "other"),
    ]
    for broken in (routes[1], routes[2]):
        for _ in range(4):
            limiter.failed(broken, seconds=9, silent=True)
        with pytest.raises(HostUnavailable), limiter.slot(broken):
            pass
    for whole in (routes[0], routes[3]):
        with limiter.slot(whole):
            pass
    limiter.pause(routes[3], 3600)
    with limiter.slot(routes[0]):
        pass


def test_redirected_requests_leave_turns_for_those_of_the_table() -> None:
    limiter = HostRateLimiter(at_once=4, per_s=None, wait_budget_s=10, brisk_s=1)
    release, running = threading.Event(), threading.Semaphore(0)

    def ask(route: Route) -> None:
        with limiter.slot(route):
            running.release()
            release.wait(20)

    with limiter.slot(Route("good", 80)):
        pass
    with ThreadPoolExecutor(12) as threads:
        for i in range(8):
            threads.submit(ask, Route("good", 80, f"evil{i}"))
        assert [running.acquire(timeout=10) for _ in range(2)] == [True, True]
        for _ in range(2):
            threads.submit(ask, Route("good", 80))
        assert [running.acquire(timeout=10) for _ in range(2)] == [True, True]
        assert not running.acquire(timeout=0.1), "four at once"
        release.set()
        assert [running.acquire(timeout=10) for _ in range(6)] == [True] * 6, "all get their turn"


def test_names_of_one_address_share_its_limits(names: dict[str, list[str]]) -> None:
    with hostile.serve_hostile() as server, ThreadPoolExecutor(16) as threads:
        port = server.address.rsplit(":")[-1]
        names |= {f"name{i}.test": ["127.0.0.1"] for i in range(32)}
        opener = GuardedOpener(config(requests_per_host=4, workers=2, threads=16))
        urls = [f"http://name{i}.test:{port}/picture/{i}" for i in range(32)]
        assert set(threads.map(lambda url: fetch(url, opener), urls)) == {hostile.picture()}
        assert server.most_at_once == 2, "four, of two workers together"


def test_who_waits_for_a_busy_address_holds_up_no_other(names: dict[str, list[str]]) -> None:
    with (
        hostile.serve_hostile() as busy,
        hostile.serve_hostile("127.0.0.2") as other,
        ThreadPoolExecutor(20) as pool,
    ):
        port = busy.address.rsplit(":")[-1]
        names |= {f"name{i}.test": ["127.0.0.1"] for i in range(20)}
        opener = GuardedOpener(
            config(requests_per_host=1, threads=2, timeout_s=20, url_deadline_s=20)
        )
        waiting = [
            pool.submit(fetch, f"http://name{i}.test:{port}/silent/{i}", opener) for i in range(19)
        ]
        assert fetch(f"{other.address}/picture/x.png", opener) == hostile.picture()
        assert not any(one.done() for one in waiting)
        busy.stopping.set()


def test_an_address_of_version_six_is_known_by_its_network() -> None:
    assert (
        shared_by("2606:4700:1:2::1")
        == shared_by("2606:4700:1:2:ffff::9")
        != shared_by("2606:4700:1:3::1")
    )
    assert shared_by("8.8.8.8") == shared_by("::ffff:8.8.8.8") != shared_by("8.8.8.9")


LACKS = [
    *(
        OSError(number, "said the system")
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
    ),
    MemoryError(),
]


@pytest.mark.parametrize("lack", LACKS, ids=str)
@pytest.mark.parametrize("where", ["socket.socket", "socket.getaddrinfo"])
def test_a_shortage_of_this_machine_is_waited_for(
    server: Hostile, monkeypatch: pytest.MonkeyPatch, where: str, lack: Exception
) -> None:
    times = fail_at_first(monkeypatch, where, lack, 3)
    monkeypatch.setattr(connections, "_PAUSE_S", 0.01)
    assert fetch(f"{server.address}/picture/x.png") == hostile.picture()
    assert times == [0]


@pytest.mark.parametrize("lack", LACKS, ids=str)
@pytest.mark.parametrize("where", ["socket.socket", "socket.getaddrinfo"])
def test_a_shortage_that_lasts_ends_the_shard_and_counts_against_no_row(
    server: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, lack: Exception
) -> None:
    fail_at_first(monkeypatch, where, lack, 10**9)
    monkeypatch.setattr(connections, "_PAUSE_S", 0.01)
    monkeypatch.setattr(connections, "_SHORTAGE_S", 0.05)
    with pytest.raises(StageFailed, match=r"ulimit|end other programs"):
        ShardDownloader(config(image_size=64), tmp_path, "")(
            shard_of([f"{server.address}/picture/{i}" for i in "ab"])
        )


def test_a_thread_that_cannot_start_is_a_shortage_too(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PAUSE_S", 0.01)
    monkeypatch.setattr(connections, "_SHORTAGE_S", 0.05)
    fail_at_first(monkeypatch, "threading.Thread", RuntimeError("can't start new thread"), 10**9)
    with pytest.raises(Shortage, match="no more threads or processes"):
        fetch(f"{server.address}/picture/x.png")


def test_a_process_of_few_descriptors_fetches_every_row(server: Hostile, tmp_path: Path) -> None:
    settings = config(
        image_size=64,
        shard_size=120,
        threads=64,
        requests_per_host=64,
        url_deadline_s=60,
        timeout_s=30,
    )
    downloader, shard = (
        ShardDownloader(settings, tmp_path, ""),
        shard_of([f"{server.address}/picture/{i}" for i in range(120)]),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # ShardDownloader has raised it
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit() - free_descriptors() + 60, hard))
    try:  # the server's own connections count too
        receipt = downloader(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (receipt.rows, receipt.figures["failed"]) == (120, {})


@pytest.mark.slow
def test_a_worker_leaves_no_temporary_files(server: Hostile, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    subprocess.run(
        [sys.executable, "-c", _ONE_ROW, server.address, str(tmp_path / "out")],
        env={**os.environ, "TMPDIR": str(temporary)},
        check=True,
    )
    assert not list(temporary.iterdir())


_ONE_ROW = """
import os, sys
from pathlib import Path
from pipeline.download.stage import ShardDownloader
from tests.pipeline.download.http.test_connections import config, shard_of

downloader = ShardDownloader(config(image_size=64), Path(sys.argv[2]), "")
downloader(shard_of([f"{sys.argv[1]}/picture/1"]))
os._exit(0)  # as a worker ends
"""


def test_slots_shrink_by_each_shortage_to_one() -> None:
    slots = Slots(2)
    for _ in range(3):
        slots.have_one_less()
    with slots.one():
        assert slots._free == 0
    assert slots._free == 1


def test_the_limit_of_descriptors_is_raised_as_far_as_may_be() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (50, 300)); from "
        "pipeline.compute.resource_limits import *;"
        "raise_descriptor_limit(); print(descriptor_limit(), free_descriptors() > 200)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "300 True\n"
    raise_descriptor_limit()


def fail_at_first(
    monkeypatch: pytest.MonkeyPatch, where: str, lack: Exception, times: int
) -> list[int]:
    """Have something of the standard library raise so many times; how many are left."""
    module = {"socket": socket, "threading": threading}[where.split(".")[0]]
    name, left = where.split(".")[1], [times]
    real: Any = getattr(module, name)

    def fail(*arguments: Any, **named: Any) -> Any:
        ours = "pipeline/" in sys._getframe(1).f_code.co_filename
        if ours and left[0]:
            left[0] -= 1
            raise lack
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, fail)
    return left
