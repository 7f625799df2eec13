"""What bounds a fetch: seconds of a URL, bytes of a connection, memory of a worker. Knows sockets;
knows no HTTP."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_BUFFER = 64 << 10
_HEADERS = 1 << 20


class TooManyBytes(Exception):
    """A connection that sends more than it may."""


class UrlDeadline:
    """The time that a URL may take in all: it stands still while the URL waits for us, not for its
    server."""

    __slots__ = ("_deadline_s", "_idle_s", "_silence_s", "_start")

    def __init__(self, deadline_s: float, silence_s: float) -> None:
        self._start, self._idle_s, self._deadline_s, self._silence_s = (
            time.monotonic(),
            0.0,
            deadline_s,
            silence_s,
        )

    def used(self) -> float:
        return time.monotonic() - self._start - self._idle_s

    def left(self) -> float:
        return self._deadline_s - self.used()

    def step_timeout(self) -> float:
        """How long the next step may take. Raises TimeoutError."""
        if (left := self.left()) <= 0:
            raise TimeoutError
        return min(left, self._silence_s)

    def refund(self, seconds: float) -> None:
        """So many of the seconds that were used don't count after all."""
        self._idle_s += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        since = time.monotonic()
        try:
            yield
        finally:
            self._idle_s += time.monotonic() - since


class BoundedStream(io.RawIOBase):
    """What a connection sends, within the deadline's time and the bytes that it is allowed, headers
    and framing included: http.client would let either run on."""

    def __init__(self, connection: socket.socket, deadline: UrlDeadline) -> None:
        self._connection, self._deadline, self._remaining = connection, deadline, _HEADERS

    def allow(self, size: int) -> None:
        """So many more bytes of content, and a quarter for its framing."""
        self._remaining += size + size // 4

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._connection.settimeout(self._deadline.step_timeout())
        received = self._connection.recv_into(buffer)
        self._remaining -= received
        if self._remaining < 0:
            raise TooManyBytes
        return received

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As http.client asks a socket for its stream."""
        return io.BufferedReader(self, _BUFFER)


class MemoryBudget:
    """Bytes that the bodies of a worker may hold together, in flight and waiting to be decoded."""

    def __init__(self, size: int) -> None:
        self._free, self._changed = size, threading.Condition()

    @contextmanager
    def reserve(self, deadline: UrlDeadline, stream: BoundedStream) -> Iterator[_Reserved]:
        """What a failed fetch had set aside comes back."""
        reserved = _Reserved(self, deadline, stream)
        try:
            yield reserved
        finally:
            self.release(reserved.size - reserved.kept_size)

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size

    def release(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()


@dataclass(slots=True)
class _Reserved:
    memory: MemoryBudget
    deadline: UrlDeadline
    stream: BoundedStream
    size: int = 0
    kept_size: int = 0

    def take(self, size: int) -> None:
        with self.deadline.paused():
            self.memory.take(size)
        self.stream.allow(size)
        self.size += size

    def keep(self, body: bytes) -> bytes:
        self.kept_size = len(body)
        return body
