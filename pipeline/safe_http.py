"""The guarded opener: fetches what a stranger's table names, and no more than it should.

Only http and https, only public addresses (checked on the very address that is connected to, so redirects
and names that change their address are covered), bodies and seconds bounded, hosts treated with manners.
It stands where urllib's opener would. Knows nothing of pictures.
"""

from __future__ import annotations

import errno
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from pipeline.addresses import Endpoint, Names, may_connect
from pipeline.bounds import Clock, Memory, TimedSource, TooManyBytes
from pipeline.config import DownloadConfig
from pipeline.host_turns import HostGivenUp, HostTurns
from pipeline.http_messages import (
    FetchFailed,
    Target,
    opted_out,
    parse_url,
    redirected,
    request_message,
    retry_after_s,
)

MAX_REDIRECTS = 5
NO_TIME_LEFT = "the shard's time was over before it was decoded"
_TRANSIENT = {
    NO_TIME_LEFT,
    *("timed out", "connection refused", "connection reset", "host is unreachable", "connection failed"),
    *("host does not answer", "name server does not answer", "HTTP 408", "HTTP 429"),
}
_REDIRECTS = {301, 302, 303, 307, 308}
_ASKS_TO_WAIT = {429, 503}
_FIRST_PAUSE_S = 0.5  # before a second try; doubled before each further one
_ADDRESSES_TRIED = 4
_MEGABYTE = 1 << 20
_PIECE = 64 << 10
_UNTOLD_BODY = 2 * _MEGABYTE  # set aside for a body whose length the server doesn't tell


def is_transient(cause: str) -> bool:
    """Whether a URL that failed for this cause may succeed another day."""
    return cause in _TRANSIENT or re.fullmatch(r"HTTP 5\d\d", cause) is not None


class GuardedOpener:
    """Fetches URLs for all threads of a worker. `proxy` is an address that this program serves itself, for the
    host name `proxied_host` only.

    The proxies of the environment (http_proxy, …) are not used: they would connect on our behalf to
    addresses that can't be checked here.
    """

    def __init__(self, config: DownloadConfig, proxy: str = "", proxied_host: str = "") -> None:
        self._config, self._proxied_host = config, proxied_host if proxy else ""
        self._proxy = _endpoint_of(proxy) if proxy else None
        self._allowed = tuple(ipaddress.ip_network(network) for network in config.allowed_networks)
        self._max_body = int(config.max_body_mb * _MEGABYTE)
        self._tls = ssl.create_default_context()
        self._names = Names()
        self.start_shard()

    def start_shard(self) -> None:
        """Forget which hosts were slow, and what was set aside."""
        config = self._config
        self._connections = threading.BoundedSemaphore(config.threads)
        self._memory = Memory(config.threads * _UNTOLD_BODY + 4 * self._max_body)
        self._turns = HostTurns(
            at_once=-(-config.requests_per_host // config.workers),  # each worker has its share of a host
            per_s=config.host_requests_per_s and config.host_requests_per_s / config.workers,
            patience_s=2 * config.url_deadline_s,
            brisk_s=config.url_deadline_s / 6,
        )

    def forget_body(self, size: int) -> None:
        """A fetched body of so many bytes is not held any more. Until then it counts as memory in use."""
        self._memory.give(size)

    def open(self, request: urllib.request.Request, data: None = None, timeout: object = None) -> BinaryIO:
        """The body of a URL, as `urllib.request.urlopen` calls it; the time-outs are the config's. Raises
        FetchFailed."""
        del data, timeout
        clock = Clock(self._config.url_deadline_s, self._config.timeout_s)
        agent = request.get_header("User-agent", "")
        for earlier in range(self._config.retries + 1):
            try:
                return io.BytesIO(self._follow(request.full_url, agent, clock))
            except FetchFailed as failure:
                pause = failure.retry_after_s
                if pause is None:
                    pause = _FIRST_PAUSE_S * 2**earlier
                hopeless = not is_transient(str(failure)) or str(failure) == "host does not answer"
                if hopeless or earlier == self._config.retries or pause >= clock.left():
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")

    def _follow(self, url: str, agent: str, clock: Clock) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._in_turn(parse_url(url), agent, clock)
            if isinstance(answer, bytes):
                return answer
            url = redirected(url, answer.location)
        raise FetchFailed("too many redirects")

    def _in_turn(self, target: Target, agent: str, clock: Clock) -> bytes | _Redirect:
        """One request, when its host and this worker have room for it; waiting for that is not the URL's fault."""
        if target.host == self._proxied_host:
            assert self._proxy
            with self._connections:
                return self._exchange(target, agent, clock)
        with ExitStack() as turn:
            try:
                with clock.stopped():
                    turn.enter_context(self._turns.turn(target.host))
                    turn.enter_context(self._connections)
            except HostGivenUp:
                raise FetchFailed("host does not answer") from None
            began = clock.used()
            try:
                answer = self._exchange(target, agent, clock)
            except FetchFailed as failure:
                cause, took = str(failure), clock.used() - began
                if cause.startswith("HTTP "):
                    self._turns.answered(target.host, took)
                else:
                    self._turns.failed(target.host, took, silent=cause == "timed out")
                if failure.retry_after_s:
                    self._turns.pause(target.host, failure.retry_after_s)
                raise
            self._turns.answered(target.host, clock.used() - began)
            return answer

    def _exchange(self, target: Target, agent: str, clock: Clock) -> bytes | _Redirect:
        try:
            with self._connect(target, clock) as connection:
                connection.settimeout(clock.patience())
                connection.sendall(request_message(target, agent, through_proxy=target.host == self._proxied_host))
                source = TimedSource(connection, clock)
                response = http.client.HTTPResponse(cast(socket.socket, source), method="GET")
                response.begin()
                return self._redirect(response) or self._body(response, clock, source)
        except Exception as error:  # whatever a stranger's server provokes
            raise error if isinstance(error, FetchFailed) else FetchFailed(_cause(error)) from error

    def _connect(self, target: Target, clock: Clock) -> socket.socket:
        if target.host == self._proxied_host:
            assert self._proxy
            endpoints = [self._proxy]
        else:
            found = self._names.look_up(target.host, target.port, clock.patience())
            endpoints = [endpoint for endpoint in found if may_connect(endpoint.address, self._allowed)]
            if not endpoints:
                raise FetchFailed("address is not public")
        problem: OSError = TimeoutError()
        for endpoint in endpoints[:_ADDRESSES_TRIED]:
            connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                connection.settimeout(clock.patience())
                connection.connect(endpoint.socket_address)
                if target.scheme == "https":
                    connection.settimeout(clock.patience())
                    return self._tls.wrap_socket(connection, server_hostname=target.host)
                return connection
            except OSError as error:
                connection.close()
                problem = error
        raise problem

    def _redirect(self, response: http.client.HTTPResponse) -> _Redirect | None:
        """Where the answer sends us; None where it has a body for us. Raises FetchFailed for all others."""
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return _Redirect(location)
        if not 200 <= response.status < 300:
            wait = retry_after_s(response.headers) if response.status in _ASKS_TO_WAIT else None
            raise FetchFailed(f"HTTP {response.status}", wait)
        if self._config.respect_opt_out and opted_out(response.headers):
            raise FetchFailed("opted out of machine learning")
        # Asked for none, so that a small body cannot become a large one.
        if (response.getheader("Content-Encoding") or "identity").strip().lower() != "identity":
            raise FetchFailed("unwanted content encoding")
        return None

    def _body(self, response: http.client.HTTPResponse, clock: Clock, source: TimedSource) -> bytes:
        """Memory is set aside before it is used: the told length, or a little and then the most there may be.
        So who waits holds little, and those who hold much never wait."""
        told, most = response.length, self._max_body
        if told is not None and told > most:
            raise TooManyBytes
        with self._memory.reserve(clock, source) as reserved:
            if told is not None:
                reserved.take(told)
                return reserved.keep(response.read())
            reserved.take(min(_UNTOLD_BODY, most))
            pieces, size = list[bytes](), 0
            while piece := response.read(_PIECE):
                size += len(piece)
                if size > most:
                    raise TooManyBytes
                if size > reserved.size:
                    reserved.take(most - reserved.size)
                pieces.append(piece)
            return reserved.keep(b"".join(pieces))


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


def _cause(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "timed out"
        case TooManyBytes():
            return "body too large"
        case socket.gaierror():
            return "name server does not answer" if error.errno == socket.EAI_AGAIN else "name does not resolve"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError() | http.client.IncompleteRead() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "connection reset"
        case ssl.SSLError() | ssl.CertificateError():
            return "TLS error"
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL):
            return "host is unreachable"
        case OSError():
            return "connection failed"
    return "not valid HTTP"


def _endpoint_of(address: str) -> Endpoint:
    parts = urlsplit(address)
    assert parts.hostname
    return Endpoint(socket.AF_INET, (parts.hostname, parts.port or 80))
