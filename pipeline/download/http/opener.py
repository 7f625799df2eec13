"""A guarded URL opener, safe to use on URLs and servers that nobody vouches for.

It speaks http and https only and connects to public addresses only. The check is done on the very
address that is connected to, so it covers redirects and names that change their address. Bodies and
seconds are bounded, and requests to each host are rate limited. It replaces urllib's opener.
"""

from __future__ import annotations

import io
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.compute.resource_limits import Shortage, own_shortage_raised
from pipeline.config.download import DownloadConfig
from pipeline.download.http.connections import Connector, host_rate_limiter
from pipeline.download.http.failure_causes import cause_of, is_transient
from pipeline.download.http.limits import MemoryBudget, TooManyBytes, UrlDeadline
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
from pipeline.download.http.responses import Response, StaleConnection, request

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_ASKS_TO_WAIT = {429, 503}
_FIRST_PAUSE_S = 0.5  # before the first retry; doubled before each further one
_MEGABYTE = 1 << 20
_CHUNK = 64 << 10
_THREADS_PER_CONNECTION = 4  # most threads wait for a slot of their host, without a connection
_UNKNOWN_LENGTH = 2 * _MEGABYTE  # bytes reserved for a body of unknown length


class GuardedOpener:
    """Fetches URLs for all threads of a worker. `proxy` is an address that this program serves
    itself; only requests to the host name `proxied_host` go there.

    Proxies from the environment (http_proxy, …) are not used, because they would connect for us to
    addresses that cannot be checked here.
    """

    def __init__(self, config: DownloadConfig, proxy: str = "", proxied_host: str = "") -> None:
        self._config = config
        self._max_body = int(config.max_body_mb * _MEGABYTE)
        self._connector = Connector(config, proxy, proxied_host)
        self.start_shard()

    @property
    def threads(self) -> int:
        """The number of threads that may call `open`."""
        return _THREADS_PER_CONNECTION * self._config.threads

    def start_shard(self, urls: Sequence[str] = ()) -> None:
        """Reset all limits and reservations."""
        del urls  # each request names its own
        config = self._config
        self._connector.start_shard()
        self._memory = MemoryBudget(config.threads * _UNKNOWN_LENGTH + 4 * self._max_body)
        self._limiter = host_rate_limiter(config, wait_budget_s=2 * config.url_deadline_s)

    def end_shard(self) -> None:
        """Close the connections that were held open for further requests."""
        self._connector.end_shard()

    @property
    def shortage(self) -> Shortage | None:
        """What this machine ran out of for so long that URLs of the shard were skipped."""
        return self._connector.shortage

    def forget_body(self, size: int) -> None:
        """Release the memory of a fetched body of this many bytes, which counts as used until
        then."""
        self._memory.release(size)

    def open(
        self, request: urllib.request.Request, data: None = None, timeout: object = None
    ) -> BinaryIO:
        """Fetch the body of a URL. `urllib.request.urlopen` calls this; the timeouts are those of
        the config.

        Raises:
            FetchFailed: The URL could not be fetched.
            Shortage: This machine ran out of something for too long.
        """
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
        """One request, repeated while this machine lacks something for it."""
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
        """One request within the rate limits of its host. Waiting for a slot does not count towards
        the URL's deadline."""
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
            with own_shortage_raised():
                message = request_message(target, agent, through_proxy=through_proxy)
                try:
                    return self._ask(target, message, deadline)
                except StaleConnection:
                    return self._ask(target, message, deadline, is_new=True)
        except (FetchFailed, Shortage):
            raise
        except Exception as error:  # an untrusted server can provoke any error
            raise FetchFailed(cause_of(error)) from error

    def _ask(
        self, target: Target, message: bytes, deadline: UrlDeadline, *, is_new: bool = False
    ) -> bytes | _Redirect:
        with self._connector.connect(target, deadline, is_new=is_new) as connection:
            response = request(connection, message, deadline)
            answer = self._answer_without_body(response) or self._body(response, deadline)
            response.discard_body()
            connection.is_reusable = response.leaves_reusable_connection()
            if isinstance(answer, FetchFailed):
                raise answer
            return answer

    def _answer_without_body(self, response: Response) -> _Redirect | FetchFailed | None:
        """The redirect or failure that a response is by its headers, or None if its body is
        wanted."""
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return _Redirect(location)
        if not 200 <= response.status < 300:
            wait = retry_after_s(response.headers) if response.status in _ASKS_TO_WAIT else None
            return FetchFailed(f"HTTP {response.status}", wait)
        if self._config.respect_opt_out and opted_out(response.headers):
            return FetchFailed("opted out of machine learning")
        if is_compressed(response.headers):
            # We requested none, so that a small body cannot become a large one.
            return FetchFailed("unwanted content encoding")
        return None

    def _body(self, response: Response, deadline: UrlDeadline) -> bytes:
        """Read the body, reserving memory before it is used: the announced length, or a little at
        first and then the maximum. So a thread that waits for memory holds little of it, and one
        that holds much never waits."""
        length, limit = response.length, self._max_body
        if length is not None and length > limit:
            raise TooManyBytes
        with self._memory.reserve(deadline, response.stream) as reserved:
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


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str
