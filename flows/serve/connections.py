"""Connection limits of the server: timeouts, a maximum number, and eviction when it is reached.

uvicorn has a timeout for connections that are kept alive after an answer, but none for clients that
never send a complete request or never read their answer.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from flows.terminal.errors import UserError

MOST_CONNECTIONS = 1024
BACKLOG = 64  # connections that asyncio accepts at once, before any limit can apply
_REQUEST_HEAD_S = 10.0
_SEND_S = 30.0
_RESERVE = 64  # file descriptors for files, threads' wake-up pipes and libraries
_FEWEST_CONNECTIONS = 16
_OPEN = Path("/proc/self/fd")
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"retry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


def connection_limit() -> int:
    """Maximum number of simultaneous connections that leaves enough file descriptors free.

    It is at most MOST_CONNECTIONS. The soft limit of descriptors is increased if the system allows
    it. Raises UserError if there are still too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = sum(1 for _ in _OPEN.iterdir()) if _OPEN.is_dir() else 64
    needed = used + BACKLOG + _RESERVE
    target = needed + MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < target:
        soft = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = (
        MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft - needed)
    )
    if limit < _FEWEST_CONNECTIONS:
        raise UserError(
            f"this system lets a process open {soft} files; the service needs "
            f"{needed + _FEWEST_CONNECTIONS}: "
            f"raise the limit with `ulimit -n {target}`"
        )
    return limit


class LimitedProtocol(H11Protocol):
    """HTTP protocol with timeouts for the head of each request and for reading the answer.

    The guard has the timeout for the body. If `most` connections are open, a new one evicts one
    that waits for its client.
    """

    most = MOST_CONNECTIONS
    request_head_s = _REQUEST_HEAD_S
    send_s = _SEND_S
    opened = 0.0
    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.opened = self.loop.time()
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            self.connections.discard(self)
            transport.write(_BUSY)
            self._close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()  # the client may never read the rest
        elif self.conn.trailing_data[0]:
            self._watch_head()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._cancel_send_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_send_timer()
        self._cancel_head_timer()

    @property
    def waits_for_client(self) -> bool:
        """Whether it has no complete request that is still to be answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _make_room(self) -> bool:
        """Evict the oldest waiting connection of the client that has the most of them."""
        siblings = (
            one for one in self.connections if isinstance(one, LimitedProtocol) and one is not self
        )
        others = [one for one in siblings if one.waits_for_client]
        if not others:
            return False
        per_client = Counter(_address(one) for one in others)
        busiest = max(per_client.values())
        evicted = min(
            (one for one in others if per_client[_address(one)] == busiest),
            key=lambda one: one.opened,
        )
        self.connections.discard(evicted)
        evicted.transport.abort()
        return True

    def _watch_head(self) -> None:
        """Start the timeout for a request head; further bytes do not extend it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.request_head_s, self._close)

    def _close(self) -> None:
        """Close, and abort if the client does not read the rest in time."""
        if not self.transport.is_closing():
            self.transport.close()
        self._cancel_send_timer()
        self._send_timer = self.loop.call_later(self.send_s, self.transport.abort)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


def limited_to(most: int) -> type[LimitedProtocol]:
    """A protocol class for a server with at most this many connections."""
    return type("LimitedProtocol", (LimitedProtocol,), {"most": most})


def _address(connection: LimitedProtocol) -> str:
    return connection.client[0] if connection.client else ""
