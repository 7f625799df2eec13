"""Idle connections of a shard, which serve further requests to the same server.

An idle connection belongs to the scheme, host and port that were asked for and to the address that
was checked, and serves nothing else. One on which the server sent or ended anything meanwhile is
closed, since what was sent could be taken for the answer to another request.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass
from operator import attrgetter

from pipeline.download.http.addresses import Endpoint

# Shorter than servers commonly wait for another request: Apache and Node.js wait 5 s.
_MAX_IDLE_S = 4.0


@dataclass(frozen=True, slots=True)
class Peer:
    """The server at the other end of a connection."""

    scheme: str
    host: str
    port: int
    endpoint: Endpoint  # checked
    network: str  # under which the endpoint's address is rate limited


@dataclass(slots=True, eq=False)
class Connection:
    """A connection that serves one request at a time."""

    peer: Peer
    socket: socket.socket
    is_reused: bool = False  # has served an earlier request
    is_reusable: bool = False  # the response was read to its certain end
    idle_since: float = 0.0


class IdleConnections:
    """The idle connections of all threads, and the peers of those that are in use. Connections that
    were idle for too long are closed when another one is asked for or comes back."""

    def __init__(self, most_per_server: int) -> None:
        self._most_per_server = most_per_server
        self._idle: list[Connection] = []  # the longest idle first
        self._in_use: list[Peer] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def take(self, peer: Peer, *, is_new: bool = False) -> Connection | None:
        """Count a connection to this peer as in use, and return the one that was idle for the
        shortest time. None with `is_new` and if no idle one is still open: then a new one has to be
        opened, after `make_room`."""
        self._close_expired()
        with self._lock:
            self._in_use.append(peer)
        while not is_new and (stored := self._remove_newest(peer)):
            if _is_silent(stored.socket):
                return Connection(peer, stored.socket, is_reused=True)
            stored.socket.close()
        return None

    def make_room(self, peer: Peer, most: int) -> None:
        """Close idle connections before a new one is opened: those beyond `most`, and those with
        which its host or address would have more connections than it may have requests at once."""
        with self._lock:
            excess = max(0, len(self._idle) - most)
            closing, self._idle = self._idle[:excess], self._idle[excess:]
            for key in (attrgetter("host"), attrgetter("network")):
                same = [
                    connection for connection in self._idle if key(connection.peer) == key(peer)
                ]
                in_use = sum(key(other) == key(peer) for other in self._in_use)
                surplus = same[: max(0, in_use + len(same) - self._most_per_server)]
                self._idle = [connection for connection in self._idle if connection not in surplus]
                closing += surplus
        _close(closing)

    def give_back(self, peer: Peer, connection: Connection | None) -> None:
        """Count a connection, or one that could not be opened, as in use no more. It is stored if
        it is reusable and the shard is not over, otherwise closed."""
        self._close_expired()
        with self._lock:
            self._in_use.remove(peer)
            if connection and connection.is_reusable and not self._is_closed:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                return
        if connection:
            connection.socket.close()

    def close_all(self, *, for_good: bool = False) -> None:
        """Close all idle connections; `for_good` also those that come back later."""
        with self._lock:
            closing, self._idle = self._idle, []
            self._is_closed |= for_good
        _close(closing)

    def _close_expired(self) -> None:
        expires = time.monotonic() - _MAX_IDLE_S
        with self._lock:
            closing = [connection for connection in self._idle if connection.idle_since <= expires]
            del self._idle[: len(closing)]
        _close(closing)

    def _remove_newest(self, peer: Peer) -> Connection | None:
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index].peer == peer:
                    return self._idle.pop(index)
        return None


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.socket.close()


def _is_silent(connection: socket.socket) -> bool:
    """Whether the server has neither sent anything nor ended the connection."""
    connection.settimeout(0)
    try:
        connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False
