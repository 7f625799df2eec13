"""The guarded opener: fetches what a stranger's table names, and no more than it should.

Only http and https, only public addresses (checked on the very address that is connected to, so
redirects and names that change their address are covered), bodies and seconds bounded, hosts
treated with manners. It stands where urllib's opener would. Knows nothing of pictures.
"""

from __future__ import annotations

import errno
import http
import http.client
import io
import re
import socket
import ssl
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline.compute.resource_limits import Shortage, own_shortage_raised
from pipeline.config.download import DownloadConfig
from pipeline.download.http.connections import Connector, host_rate_limiter
from pipeline.download.http.limits import BoundedStream, MemoryBudget, TooManyBytes, UrlDeadline
from pipeline.download.http.messages import (
    FetchFailed,
    Target,
    is_compressed,
    opted_out,
    parse_url,
    redirected,
    request_message,
    retry_after_s,
)
from pipeline.download.http.rate_limiter import HostUnavailable, Route

MAX_REDIRECTS = 5
NO_TIME_LEFT = "the shard's time was over before it was decoded"
_TRANSIENT = {
    NO_TIME_LEFT,
    *(
        "timed out",
        "connection refused",
        "connection reset",
        "host is unreachable",
        "connection failed",
    ),
    *("host does not answer", "name server does not answer", "HTTP 408", "HTTP 429"),
}
_REDIRECTS = {301, 302, 303, 307, 308}
_ASKS_TO_WAIT = {429, 503}
_FIRST_PAUSE_S = 0.5  # before a second try; doubled before each further one
_MEGABYTE = 1 << 20
_CHUNK = 64 << 10
_UNKNOWN_LENGTH = 2 * _MEGABYTE  # set aside for a body whose length the server doesn't tell


def is_transient(cause: str) -> bool:
    """Whether a URL that failed for this cause may succeed another day."""
    return cause in _TRANSIENT or re.fullmatch(r"HTTP 5\d\d", cause) is not None


class GuardedOpener:
    """Fetches URLs for all threads of a worker. `proxy` is an address that this program serves
    itself, for the host name `proxied_host` only.

    The proxies of the environment (http_proxy, …) are not used: they would connect on our behalf to
    addresses that can't be checked here.
    """

    def __init__(self, config: DownloadConfig, proxy: str = "", proxied_host: str = "") -> None:
        self._config = config
        self._max_body = int(config.max_body_mb * _MEGABYTE)
        self._connector = Connector(config, proxy, proxied_host)
        self.start_shard()

    def start_shard(self) -> None:
        """Forget which hosts were slow, and what was set aside."""
        config = self._config
        self._connector.start_shard()
        self._memory = MemoryBudget(config.threads * _UNKNOWN_LENGTH + 4 * self._max_body)
        self._limiter = host_rate_limiter(config, wait_budget_s=2 * config.url_deadline_s)

    @property
    def shortage(self) -> Shortage | None:
        """What this machine lacked for so long that URLs of the shard were left."""
        return self._connector.shortage

    def forget_body(self, size: int) -> None:
        """A fetched body of so many bytes is not held any more. Until then it counts as memory in
        use."""
        self._memory.release(size)

    def open(
        self, request: urllib.request.Request, data: None = None, timeout: object = None
    ) -> BinaryIO:
        """The body of a URL, as `urllib.request.urlopen` calls it; the time-outs are the config's.
        Raises FetchFailed, Shortage."""
        del data, timeout
        deadline = UrlDeadline(self._config.url_deadline_s, self._config.timeout_s)
        agent = request.get_header("User-agent", "")
        for attempt in range(self._config.retries + 1):
            try:
                return io.BytesIO(self._follow(request.full_url, agent, deadline))
            except FetchFailed as failure:
                pause = failure.retry_after_s
                if pause is None:
                    pause = _FIRST_PAUSE_S * 2**attempt
                permanent = not is_transient(str(failure)) or str(failure) == "host does not answer"
                if permanent or attempt == self._config.retries or pause >= deadline.left():
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")

    def _follow(self, url: str, agent: str, deadline: UrlDeadline) -> bytes:
        target = first = parse_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            route = Route(target.host, target.port, "" if target.host == first.host else first.host)
            answer = self._request_until_resources(target, route, agent, deadline)
            if isinstance(answer, bytes):
                return answer
            url = redirected(url, answer.location)
            target = parse_url(url)
        raise FetchFailed("too many redirects")

    def _request_until_resources(
        self, target: Target, route: Route, agent: str, deadline: UrlDeadline
    ) -> bytes | _Redirect:
        """One request, again where this machine lacked something for it."""
        since = time.monotonic()
        while True:
            used = deadline.used()
            try:
                return self._rate_limited(target, route, agent, deadline)
            except Shortage as shortage:
                deadline.refund(deadline.used() - used)
                with deadline.paused():
                    self._connector.wait_out(shortage, since)

    def _rate_limited(
        self, target: Target, route: Route, agent: str, deadline: UrlDeadline
    ) -> bytes | _Redirect:
        """One request, when its host has room for it; waiting for that is not the URL's fault."""
        if target.host == self._connector.proxied_host:
            return self._exchange(target, agent, deadline)
        with ExitStack() as stack:
            try:
                with deadline.paused():
                    stack.enter_context(self._limiter.slot(route))
            except HostUnavailable:
                raise FetchFailed("host does not answer") from None
            began = deadline.used()
            try:
                answer = self._exchange(target, agent, deadline)
            except FetchFailed as failure:
                cause, took = str(failure), deadline.used() - began
                if cause.startswith("HTTP "):
                    self._limiter.answered(route, took)
                else:
                    self._limiter.failed(route, took, silent=cause == "timed out")
                if failure.retry_after_s:
                    self._limiter.pause(route, failure.retry_after_s)
                raise
            self._limiter.answered(route, deadline.used() - began)
            return answer

    def _exchange(self, target: Target, agent: str, deadline: UrlDeadline) -> bytes | _Redirect:
        through_proxy = target.host == self._connector.proxied_host
        try:
            with own_shortage_raised(), self._connector.connect(target, deadline) as connection:
                connection.settimeout(deadline.step_timeout())
                connection.sendall(request_message(target, agent, through_proxy))
                stream = BoundedStream(connection, deadline)
                response = _FinalResponse(cast(socket.socket, stream), method="GET")
                response.begin()
                return self._redirect(response) or self._body(response, deadline, stream)
        except (FetchFailed, Shortage):
            raise
        except Exception as error:  # whatever a stranger's server provokes
            raise FetchFailed(_cause(error)) from error

    def _redirect(self, response: http.client.HTTPResponse) -> _Redirect | None:
        """Where the answer sends us; None where it has a body for us. Raises FetchFailed for all
        others."""
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return _Redirect(location)
        if not 200 <= response.status < 300:
            wait = retry_after_s(response.headers) if response.status in _ASKS_TO_WAIT else None
            raise FetchFailed(f"HTTP {response.status}", wait)
        if self._config.respect_opt_out and opted_out(response.headers):
            raise FetchFailed("opted out of machine learning")
        if is_compressed(
            response.headers
        ):  # asked for none, so that a small body cannot become a large one
            raise FetchFailed("unwanted content encoding")
        return None

    def _body(
        self, response: http.client.HTTPResponse, deadline: UrlDeadline, stream: BoundedStream
    ) -> bytes:
        """Memory is set aside before it is used: the told length, or a little and then the most
        there may be. So who waits holds little, and those who hold much never wait."""
        length, limit = response.length, self._max_body
        if length is not None and length > limit:
            raise TooManyBytes
        with self._memory.reserve(deadline, stream) as reserved:
            if length is not None:
                reserved.take(length)
                return reserved.keep(response.read())
            reserved.take(min(_UNKNOWN_LENGTH, limit))
            chunks, size = list[bytes](), 0
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise TooManyBytes
                if size > reserved.size:
                    reserved.take(limit - reserved.size)
                chunks.append(chunk)
            return reserved.keep(b"".join(chunks))


class _FinalResponse(http.client.HTTPResponse):
    """Passes over the interim answers (1xx) that may come before the final one, within the bounds
    of its stream."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # a method that typeshed leaves out
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)


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
            return (
                "name server does not answer"
                if error.errno == socket.EAI_AGAIN
                else "name does not resolve"
            )
        case ConnectionRefusedError():
            return "connection refused"
        case (
            ConnectionError()
            | http.client.IncompleteRead()
            | ssl.SSLEOFError()
            | ssl.SSLZeroReturnError()
        ):
            return "connection reset"
        case ssl.SSLError() | ssl.CertificateError():
            return "TLS error"
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL):
            return "host is unreachable"
        case OSError():
            return "connection failed"
    return "not valid HTTP"
