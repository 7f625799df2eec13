"""What a stranger's table and servers can do to us, tried on a hostile server on loopback."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_catalog.url_table.table import UrlShard
from pipeline.config.download import DownloadConfig
from pipeline.download.http.addresses import is_allowed
from pipeline.download.http.failure_causes import is_transient
from pipeline.download.http.messages import FetchFailed
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.http.rate_limiter import HostRateLimiter, HostUnavailable, Route
from pipeline.download.shard_downloader import ShardDownloader
from tests.support import hostile
from tests.support.certificates import self_signed
from tests.support.hostile import Hostile

LOOPBACK = ("127.0.0.0/8",)


def config(**changed: Any) -> DownloadConfig:
    """Deadlines that a machine under load keeps too: a test that expects a timeout sets its own."""
    settings: dict[str, Any] = {
        "urls": "table.csv",
        "allowed_networks": LOOPBACK,
        "url_deadline_s": 120,
        "timeout_s": 60,
        "retries": 0,
        "workers": 1,
        "threads": 8,
        "host_requests_per_s": None,
    }
    return DownloadConfig(**{**settings, **changed})


def fetch(url: str, opener: GuardedOpener | None = None, **changed: Any) -> bytes | str:
    """The body, or the cause of failure."""
    opener = opener or GuardedOpener(config(**changed))
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "test (tld)"})) as body:
            return body.read()
    except FetchFailed as failure:
        return str(failure)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with hostile.serve_hostile() as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that resolve as a test says: no real name resolves to a private address for certain, or
    offline."""
    addresses: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in addresses:
            return real(host, port, *args, **options)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return addresses


def test_a_picture_is_fetched_with_our_name_in_the_user_agent(server: Hostile) -> None:
    assert fetch(f"{server.address}/picture/a b é.png") == hostile.picture()
    assert "test (tld)" in server.agents


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
        ),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16"),
        *(
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
        ),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
        ),
        *(
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:127.0.0.1",
        ),
        *("fe80::5efe:8.8.8.8", "fd00::200:5efe:8.8.8.8", "::ffff:0:127.0.0.1"),
    ],
)
def test_addresses_that_are_not_public_are_refused_in_every_form(address: str) -> None:
    assert not is_allowed(address)


def test_public_and_allowed_addresses_are_not_refused() -> None:
    public = (
        "8.8.8.8",
        "2606:4700::1111",
        "64:ff9b::808:808",
        "2002:808:808::",
        "::ffff:8.8.8.8",
        "2606:4700::5efe:8.8.8.8",
    )
    assert all(is_allowed(address) for address in public)
    allowed = tuple(ipaddress.ip_network(network) for network in LOOPBACK)
    assert is_allowed("127.3.2.1", allowed)
    assert is_allowed("::ffff:127.0.0.1", allowed)
    assert not is_allowed("10.0.0.1", allowed)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_refused_however_it_is_written(server: Hostile, host: str) -> None:
    url = server.address.replace("127.0.0.1", host) + "/picture/refused.png"
    assert fetch(url, allowed_networks=()) == "address is not public"
    assert server.asked["/picture/refused.png"] == 0


@pytest.mark.parametrize(
    ("to", "cause"),
    [
        ("file:///etc/passwd", "not http or https"),
        ("ftp://127.0.0.1/x", "not http or https"),
        ("data:image/png;base64,xx", "not http or https"),
        ("http://10.0.0.1/", "address is not public"),
        ("http://169.254.169.254/latest/meta-data/", "address is not public"),
        ("http://[::1]/", "address is not public"),
        ("http://[::ffff:10.0.0.1]/", "address is not public"),
        ("//10.0.0.1/", "address is not public"),
        ("http://picture@10.0.0.1:x/", "not a valid URL"),
        ("http://a..b/", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("http://127.0.0.1:2/", "connection refused"),
        *(
            (f"http://127.0.0.1:{port}/", "port of another protocol")
            for port in (0, 1, 22, 25, 587, 6000, 6667, 10080)
        ),
        ("https://127.0.0.1:25/", "port of another protocol"),
    ],
)
def test_a_redirect_leads_no_further_than_a_url(server: Hostile, to: str, cause: str) -> None:
    assert fetch(f"{server.address}/redirect?to={to}") == cause
    if to != "http://[::1":  # which urllib's own Request refuses
        assert fetch(to if ":" in to.split("/")[0] else f"http:{to}") == cause


def test_five_redirects_are_followed_and_a_loop_ends(server: Hostile) -> None:
    assert fetch(f"{server.address}/redirect?to=/picture/x.png") == hostile.picture()
    assert fetch(f"{server.address}/loop") == "too many redirects"
    assert server.asked["/loop"] == 6


def test_a_name_is_as_good_as_its_address(server: Hostile, names: dict[str, list[str]]) -> None:
    port = server.address.rsplit(":")[-1]
    names |= {
        "inward.test": ["10.0.0.1", "169.254.169.254"],
        "mixed.test": ["10.0.0.1", "127.0.0.1"],
    }
    assert fetch(f"http://inward.test:{port}/picture/x.png") == "address is not public"
    assert fetch(f"http://mixed.test:{port}/picture/x.png") == hostile.picture(), (
        "only the allowed one is connected to"
    )


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["127.0.0.1", "10.0.0.1", "10.0.0.1"])
    asked = list[str]()

    def resolve(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (
        fetch(f"http://rebinding.test:{server.address.rsplit(':')[-1]}/picture/x.png")
        == hostile.picture()
    )
    assert asked == ["rebinding.test"]


def test_a_name_that_does_not_resolve_is_told_from_a_name_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(host: str, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(
            socket.EAI_AGAIN if "again" in host else socket.EAI_NONAME, "said the system"
        )

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert fetch("http://none.test/") == "name does not resolve"
    assert fetch("http://again.test/") == "name server does not answer"


def test_a_name_server_that_hangs_costs_a_url_its_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(30) and [])
    assert fetch("http://hanging.test/", url_deadline_s=0.3) == "timed out"
    end.set()


def test_proxies_of_the_environment_are_not_used(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    assert fetch("http://10.0.0.1/") == "address is not public"


def test_our_own_proxy_serves_its_host_only(server: Hostile) -> None:
    opener = GuardedOpener(
        config(allowed_networks=()), proxy=server.address, proxied_host="shapes.test"
    )
    assert fetch("http://shapes.test/picture/x.png", opener) == hostile.picture()
    assert (
        fetch("http://shapes.test/redirect?to=http://10.0.0.1/", opener) == "address is not public"
    )
    assert fetch(f"{server.address}/picture/x.png", opener) == "address is not public"


def test_a_certificate_has_to_be_for_the_name_in_the_url(
    tmp_path: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(["pictures.test"], tmp_path)
    names |= {"pictures.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    with hostile.serve_hostile(certificate=certificate) as server:
        port = server.address.rsplit(":")[-1]
        assert fetch(f"https://pictures.test:{port}/picture/x.png") == "TLS error", (
            "nobody vouches for it"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(f"https://pictures.test:{port}/picture/x.png") == hostile.picture()
        assert fetch(f"https://other.test:{port}/picture/x.png") == "TLS error"


@pytest.mark.parametrize("how", ["told", "untold", "chunked"])
def test_a_flood_is_not_taken_in(how: str) -> None:
    with hostile.serve_hostile() as server:
        assert fetch(f"{server.address}/flood/{how}", max_body_mb=2) == "body too large"
        assert server.bytes_sent < hostile.FLOOD / 4, "we hang up long before its end"


def test_memory_stays_bounded_under_floods_and_bombs() -> None:
    with hostile.serve_hostile() as server:
        done = subprocess.run(
            [sys.executable, "-c", _FETCH_FLOODS, server.address],
            capture_output=True,
            text=True,
            check=True,
        )
    before, after, causes = done.stdout.strip().split("\n")
    assert Counter(eval(causes)) == {
        "body too large": 48,
        "image area too large": 2,
    }  # our own words
    assert int(after) - int(before) < 400_000, "KB; 48 bodies of 300 MB, two pictures of 768 MB"


def test_what_a_failed_fetch_had_set_aside_comes_back(server: Hostile) -> None:
    opener = GuardedOpener(config(threads=1, max_body_mb=1))
    for _ in range(8):  # of 1 MB, and 6 MB to share
        assert fetch(f"{server.address}/flood/untold", opener) == "body too large"


def test_a_shard_may_be_larger_than_the_memory_for_its_bodies(
    server: Hostile, tmp_path: Path
) -> None:
    urls = [f"{server.address}/noise/{i}.png" for i in range(24)]
    pairs = pa.table({"url": urls, "caption": ["noise"] * 24, "split": [""] * 24})
    settings = config(image_size=64, shard_size=24, threads=1, max_body_mb=0.3)
    assert ShardDownloader(settings, tmp_path, "")(UrlShard(0, pairs)).rows == 24, (
        "4.4 MB through 3.2 MB"
    )


_FETCH_FLOODS = """
import io, resource, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pipeline.config.run import DownloadConfig
from pipeline.download.resize import SquareResizer
from pipeline.download.http.opener import GuardedOpener

settings = {"urls": "x", "allowed_networks": ["127.0.0.0/8"], "host_requests_per_s": None}
settings |= {"requests_per_host": 32, "workers": 1, "threads": 32, "retries": 0}
opener = GuardedOpener(DownloadConfig(**settings))
resize = SquareResizer(64, "png", 95, 64, 64e6, 4.0)

def work(path):
    try:
        body = opener.open(urllib.request.Request(sys.argv[1] + path)).read()
        opener.forget_body(len(body))
        return resize(io.BytesIO(body))[-1]
    except Exception as cause:
        return str(cause)

print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
with ThreadPoolExecutor(32) as threads:
    causes = list(threads.map(work, ["/flood/untold", "/flood/told", "/flood/chunked"] * 16))
causes += [work("/bomb/png"), work("/bomb/png")]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(causes)
"""


@pytest.mark.parametrize("path", ["/drip/headers", "/drip/body", "/silent"])
def test_a_server_that_drips_or_says_nothing_costs_a_url_its_time_only(
    server: Hostile, path: str
) -> None:
    assert fetch(f"{server.address}{path}", url_deadline_s=2.5, timeout_s=2) == "timed out"


def test_a_server_that_never_accepts_is_not_waited_for() -> None:
    with hostile.never_accepting() as address:
        assert fetch(address, url_deadline_s=0.5) == "timed out"


@pytest.mark.parametrize(
    "name", ["aws-chunked", "utf-8", "none", "binary", "identity", "identity,identity", ""]
)
def test_what_is_no_content_coding_stands_before_plain_bytes(server: Hostile, name: str) -> None:
    assert fetch(f"{server.address}/coding/{name}") == hostile.picture()


@pytest.mark.parametrize(
    "names", ["gzip", "x-gzip", "GZip", "deflate", "br", "zstd", "compress", "identity/gzip"]
)
def test_a_body_in_a_content_coding_is_refused(server: Hostile, names: str) -> None:
    assert fetch(f"{server.address}/coding/{names}") == "unwanted content encoding"
    assert fetch(f"{server.address}/coding/aws-chunked,{names}") == "unwanted content encoding"


@pytest.mark.parametrize("status", [100, 102, 103, 110, 199])
def test_interim_answers_are_passed_over(server: Hostile, status: int) -> None:
    assert fetch(f"{server.address}/interim/{status}/3") == hostile.picture()
    assert fetch(f"{server.address}/interim/{status}/1000000") == "body too large"


def test_a_protocol_that_nobody_asked_for_is_no_interim_answer(server: Hostile) -> None:
    assert fetch(f"{server.address}/interim/101/1") == "HTTP 101"


@pytest.mark.parametrize("url", ["{} ", " {}", "{}\r\n", "\t{}\n", "{}?a b"])
def test_white_space_around_and_in_a_url_is_read_as_browsers_do(server: Hostile, url: str) -> None:
    assert fetch(url.format(f"{server.address}/picture/a b.png")) == hostile.picture()


def test_a_compressed_body_is_not_unpacked(server: Hostile) -> None:
    assert fetch(f"{server.address}/bomb/gzip") == "unwanted content encoding"


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/reset", "connection reset"),
        ("/short", "connection reset"),
        ("/garbage", "not valid HTTP"),
        ("/flood/headers", "body too large"),
        ("/status/403", "HTTP 403"),
        ("/status/404", "HTTP 404"),
        ("/status/503", "HTTP 503"),
    ],
)
def test_failures_have_causes_that_can_be_counted(server: Hostile, path: str, cause: str) -> None:
    assert fetch(f"{server.address}{path}") == cause


def test_only_what_may_pass_is_tried_again(server: Hostile) -> None:
    for status, requests in ((403, 1), (404, 1), (410, 1), (500, 3), (503, 3)):
        before = server.asked[f"/status/{status}"]
        assert fetch(f"{server.address}/status/{status}", retries=2) == f"HTTP {status}"
        assert server.asked[f"/status/{status}"] - before == requests


@pytest.mark.parametrize("path", ["/busy/429/seconds", "/busy/503/seconds", "/busy/429/date"])
def test_a_server_that_asks_to_wait_is_waited_for(server: Hostile, path: str) -> None:
    assert fetch(f"{server.address}{path}", retries=1) == hostile.picture()
    assert server.asked[path] == 2


def test_a_server_that_asks_to_wait_too_long_is_not_asked_again(server: Hostile) -> None:
    opener = GuardedOpener(config(retries=3))
    assert fetch(f"{server.address}/busy/429/day", opener) == "HTTP 429"
    assert fetch(f"{server.address}/picture/x.png", opener) == "host does not answer"
    opener.start_shard()
    assert fetch(f"{server.address}/picture/x.png", opener) == hostile.picture()


def test_opt_outs_are_respected_where_they_address_everybody_or_us(server: Hostile) -> None:
    for how, opted_out in {
        "all": True,
        "us": True,
        "reservation": True,
        "others": False,
        "expiry": False,
    }.items():
        expected = "opted out of machine learning" if opted_out else hostile.picture()
        assert fetch(f"{server.address}/optout/{how}") == expected, how
    assert fetch(f"{server.address}/optout/all", respect_opt_out=False) == hostile.picture()


def test_a_host_is_asked_no_more_than_so_many_things_at_once() -> None:
    with hostile.serve_hostile() as server, ThreadPoolExecutor(16) as threads:
        opener = GuardedOpener(config(requests_per_host=4, workers=2, threads=16))
        bodies = list(
            threads.map(lambda i: fetch(f"{server.address}/picture/{i}.png", opener), range(40))
        )
        assert set(bodies) == {hostile.picture()}
        assert server.most_at_once == 2, "four, of two workers together"


def test_a_host_is_asked_no_more_often_than_the_rate_allows() -> None:
    with hostile.serve_hostile() as server, ThreadPoolExecutor(16) as threads:
        opener = GuardedOpener(config(host_requests_per_s=20))
        began = datetime.now(UTC)
        list(threads.map(lambda i: fetch(f"{server.address}/picture/{i}.png", opener), range(21)))
        assert datetime.now(UTC) - began >= timedelta(seconds=0.99), "twenty intervals of 50 ms"


def test_a_host_is_given_up_when_it_was_waited_for_long_enough() -> None:
    limiter = HostRateLimiter(at_once=2, per_s=None, wait_budget_s=10, brisk_s=1)
    for _ in range(100):
        limiter.answered(Route("brisk"), seconds=0.9)
        limiter.answered(Route("slow"), seconds=1.4)
    with limiter.slot(Route("brisk")), limiter.slot(Route("slow")):
        pass
    for _ in range(3):
        limiter.answered(Route("crawling"), seconds=10)
    for _ in range(4):
        limiter.failed(Route("silent"), seconds=0.5, silent=True)
    limiter.pause(Route("busy"), 11)
    for name in ("crawling", "silent", "busy"):
        with pytest.raises(HostUnavailable), limiter.slot(Route(name)):
            pass


def test_who_waits_for_a_host_is_told_when_it_is_given_up() -> None:
    limiter = HostRateLimiter(at_once=1, per_s=None, wait_budget_s=10, brisk_s=1)
    refused = list[str]()

    def wait() -> None:
        try:
            with limiter.slot(Route("host")):
                pass
        except HostUnavailable:
            refused.append("host")

    threads = [threading.Thread(target=wait) for _ in range(5)]
    with limiter.slot(Route("host")):
        for thread in threads:
            thread.start()
        limiter.pause(Route("host"), 3600)
        for thread in threads:
            thread.join()
    assert refused == ["host"] * 5


def test_a_hostile_table_costs_its_own_rows_only(tmp_path: Path) -> None:
    with hostile.serve_hostile() as good, hostile.serve_hostile("127.0.0.2") as bad:
        broken = {
            "/bomb/png": "image area too large",
            "/flood/told": "body too large",
            "/optout/all": "opted out of machine learning",
            "/status/403": "HTTP 403",
            "/loop": "too many redirects",
            "/redirect?to=file:///etc/passwd": "not http or https",
        }
        silent = [f"{bad.address}/silent/{i}" for i in range(150)]
        urls = (
            silent
            + [good.address + path for path in broken]
            + [f"{good.address}/picture/{i}" for i in range(20)]
        )
        pairs = pa.table(
            {"url": urls, "caption": ["a caption"] * len(urls), "split": [""] * len(urls)}
        )
        settings = config(
            image_size=64,
            shard_size=len(urls),
            url_deadline_s=10,
            timeout_s=2,
            requests_per_host=4,
        )
        receipt = ShardDownloader(settings, tmp_path, "")(UrlShard(0, pairs))
    assert receipt.rows == 20
    failed = Counter(receipt.figures["failed"])
    assert failed["timed out"] + failed["host does not answer"] == 150
    assert failed["timed out"] <= 2 * 4 + 3, "the host is given up"
    assert {cause: failed[cause] for cause in broken.values()} == dict.fromkeys(broken.values(), 1)


@pytest.mark.parametrize(
    ("cause", "transient"),
    [
        *(
            (cause, True)
            for cause in (
                "timed out",
                "connection refused",
                "connection reset",
                "host does not answer",
            )
        ),
        *(
            (cause, True)
            for cause in ("HTTP 429", "HTTP 500", "HTTP 503", "name server does not answer")
        ),
        *(
            (cause, False)
            for cause in ("HTTP 403", "HTTP 404", "HTTP 410", "body too large", "not an image")
        ),
        *(
            (cause, False)
            for cause in ("address is not public", "TLS error", "name does not resolve", "HTTP 5")
        ),
    ],
)
def test_transient_causes_are_told_from_permanent_ones(cause: str, transient: bool) -> None:
    assert is_transient(cause) is transient


def test_a_network_that_is_none_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match=r"write a network as 10\.20\.0\.0/16"):
        config(allowed_networks=["127.0.0.1/8"])
