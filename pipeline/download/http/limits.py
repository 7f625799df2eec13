"""Limits of a fetch: the deadline of a URL, the bytes of a connection, the memory of a worker."""

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
    """A connection sent more bytes than are allowed."""


class UrlDeadline:
    """The deadline of a URL. It is paused while the URL waits for this program rather than for its
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
        """Seconds that the next step may take. Raises TimeoutError if none are left."""
        if (left := self.left()) <= 0:
            raise TimeoutError
        return min(left, self._silence_s)

    def refund(self, seconds: float) -> None:
        """Give back this many of the used seconds."""
        self._idle_s += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        since = time.monotonic()
        try:
            yield
        finally:
            self._idle_s += time.monotonic() - since


class BoundedStream(io.RawIOBase):
    """The bytes of one response, bounded by the deadline and by a number of bytes that includes
    headers and framing; http.client bounds neither."""

    def __init__(self, connection: socket.socket, deadline: UrlDeadline) -> None:
        self.deadline = deadline
        self.has_surplus = False  # bytes arrived that http.client did not take for the response's
        self._connection, self._remaining, self._is_over = connection, _HEADERS, False

    def allow(self, size: int) -> None:
        """Allow this many more bytes of content, and a quarter of it for framing."""
        self._remaining += size + size // 4

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._is_over:
            return 0
        self._connection.settimeout(self.deadline.step_timeout())
        received = self._connection.recv_into(buffer)
        self._remaining -= received
        if self._remaining < 0:
            raise TooManyBytes
        return received

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The method by which http.client gets the stream of a socket."""
        return _ResponseReader(self, _BUFFER)

    def end(self, reader: io.BufferedReader) -> None:
        """Read no more, and note whether the reader has bytes left."""
        self._is_over = True
        self.has_surplus = bool(reader.peek())


class _ResponseReader(io.BufferedReader):
    """Reads ahead of a response's end; http.client closes it there."""

    raw: BoundedStream

    def close(self) -> None:
        if not self.closed:
            self.raw.end(self)
        super().close()


class MemoryBudget:
    """Bounds the total size of a worker's bodies, in flight or waiting to be decoded."""

    def __init__(self, size: int) -> None:
        self._free, self._changed = size, threading.Condition()

    @contextmanager
    def reserve(self, deadline: UrlDeadline, stream: BoundedStream) -> Iterator[_Reserved]:
        """Reserve memory for one body. Whatever the block does not keep is released at its end."""
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
