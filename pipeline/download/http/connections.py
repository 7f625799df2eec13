"""Connections to allowed addresses only, limited by the settings and by free file descriptors."""

from __future__ import annotations

import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from pipeline.compute.resource_limits import Shortage, free_descriptors, own_shortage_raised
from pipeline.config.download import DownloadConfig
from pipeline.download.http.addresses import DnsCache, Endpoint, is_allowed, shared_by
from pipeline.download.http.idle_connections import Connection, IdleConnections, Peer
from pipeline.download.http.limits import UrlDeadline
from pipeline.download.http.messages import FetchFailed, Target
from pipeline.download.http.rate_limiter import HostRateLimiter, Route

_MAX_ADDRESSES = 4
_DESCRIPTORS_PER_CONNECTION = 3  # its socket, and the files of its DNS lookup
_RESERVED_DESCRIPTORS = 16  # for the files of the shard
_SHORTAGE_S = 30.0  # a shortage that lasts longer fails the shard
_PAUSE_S = 0.5


class Slots:
    """Limits concurrent connections; each shortage lowers the limit by one. Idle connections may
    fill the free slots."""

    def __init__(self, size: int) -> None:
        self._size = max(
            1,
            min(size, (free_descriptors() - _RESERVED_DESCRIPTORS) // _DESCRIPTORS_PER_CONNECTION),
        )
        self._free, self._changed = self._size, threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a slot and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify()

    @property
    def free(self) -> int:
        """How many more connections may be open, idle ones included."""
        return max(0, self._free)

    def have_one_less(self) -> None:
        """Lower the limit by one, but never below one."""
        with self._changed:
            if self._size > 1:
                self._size -= 1
                self._free -= 1


class Connector:
    """Connects to hosts by name, or reuses an idle connection. `proxy` is an address that this
    program serves itself; only requests to `proxied_host` go there."""

    def __init__(self, config: DownloadConfig, proxy: str, proxied_host: str) -> None:
        self.proxied_host = proxied_host if proxy else ""
        self._config, self._proxy = config, _endpoint_of(proxy) if proxy else None
        self._allowed = tuple(ipaddress.ip_network(network) for network in config.allowed_networks)
        self._tls = ssl.create_default_context()
        self._dns = DnsCache()
        self.shortage: Shortage | None = None
        self._idle = IdleConnections(0)
        self.start_shard()

    def start_shard(self) -> None:
        """Reset all limits."""
        self.end_shard()
        self._slots, self.shortage = Slots(self._config.threads), None
        self._idle = IdleConnections(requests_at_once(self._config))
        self._lookups = threading.BoundedSemaphore(self._config.threads)
        self._by_address = host_rate_limiter(self._config, wait_budget_s=math.inf)

    def end_shard(self) -> None:
        """Close the idle connections, and those in use as soon as they are idle."""
        self._idle.close_all(for_good=True)

    def wait_out(self, shortage: Shortage, since: float) -> None:
        """Wait before another try because this machine ran out of something. Raises `shortage` if
        it has lasted too long."""
        if self.shortage or time.monotonic() - since > _SHORTAGE_S:
            self.shortage = self.shortage or shortage
            raise shortage
        self._slots.have_one_less()
        self._idle.close_all()
        time.sleep(_PAUSE_S)

    @contextmanager
    def connect(
        self, target: Target, deadline: UrlDeadline, *, is_new: bool = False
    ) -> Iterator[Connection]:
        """A connection for the duration of the block, with `is_new` never a reused one. Waiting for
        a slot does not count towards the URL's deadline."""
        with ExitStack() as stack:
            yield self._connect(target, deadline, stack, is_new=is_new)

    def _connect(
        self, target: Target, deadline: UrlDeadline, stack: ExitStack, *, is_new: bool
    ) -> Connection:
        problem: OSError = TimeoutError()
        for endpoint in self._endpoints(target, deadline)[:_MAX_ADDRESSES]:
            network = shared_by(endpoint.address)
            peer = Peer(target.scheme, target.host, target.port, endpoint, network)
            try:
                with ExitStack() as this_try:
                    with deadline.paused():
                        if endpoint != self._proxy:
                            this_try.enter_context(self._by_address.slot(Route(network)))
                        this_try.enter_context(self._slots.one())
                    connection = this_try.enter_context(self._lend(peer, deadline, is_new=is_new))
                    stack.push(this_try.pop_all())
                    return connection
            except OSError as error:
                problem = error
        raise problem

    @contextmanager
    def _lend(self, peer: Peer, deadline: UrlDeadline, *, is_new: bool) -> Iterator[Connection]:
        idle = self._idle
        connection = idle.take(peer, is_new=is_new)
        try:
            if connection is None:
                idle.make_room(peer, self._slots.free)
                connection = Connection(peer, self._open(peer, deadline))
            yield connection
        finally:
            idle.give_back(peer, connection)

    def _endpoints(self, target: Target, deadline: UrlDeadline) -> list[Endpoint]:
        if target.host == self.proxied_host:
            assert self._proxy
            return [self._proxy]
        with ExitStack() as stack:
            with deadline.paused():
                stack.enter_context(self._lookups)
            endpoints = self._dns.look_up(target.host, target.port, deadline.step_timeout())
        allowed = [
            endpoint for endpoint in endpoints if is_allowed(endpoint.address, self._allowed)
        ]
        if not allowed:
            raise FetchFailed("address is not public")
        return allowed

    def _open(self, peer: Peer, deadline: UrlDeadline) -> socket.socket:
        with own_shortage_raised():
            connection = socket.socket(peer.endpoint.family, socket.SOCK_STREAM)
            try:
                connection.settimeout(deadline.step_timeout())
                connection.connect(peer.endpoint.socket_address)
                if peer.scheme == "https":
                    connection.settimeout(deadline.step_timeout())
                    return self._tls.wrap_socket(connection, server_hostname=peer.host)
                return connection
            except BaseException:
                connection.close()
                raise


def requests_at_once(config: DownloadConfig) -> int:
    """This worker's share of the requests that a host may get at once."""
    return -(-config.requests_per_host // config.workers)


def host_rate_limiter(config: DownloadConfig, wait_budget_s: float) -> HostRateLimiter:
    """A rate limiter with this worker's share of the limits for a host."""
    return HostRateLimiter(
        at_once=requests_at_once(config),
        per_s=config.host_requests_per_s and config.host_requests_per_s / config.workers,
        wait_budget_s=wait_budget_s,
        brisk_s=config.url_deadline_s / 6,
    )


def _endpoint_of(address: str) -> Endpoint:
    parts = urlsplit(address)
    assert parts.hostname
    return Endpoint(socket.AF_INET, (parts.hostname, parts.port or 80))
