"""Manners towards hosts, and patience with them: how many requests at once, how many a second, when no more.

Knows names and seconds; knows nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_REWARD_S = 0.25  # patience that an answer earns: in the long run a host has to be brisk, or give 4 a second


class HostGivenUp(Exception):
    """A host that cost too much waiting: it is asked no more for now."""


@dataclass(slots=True)
class _Host:
    patience_s: float
    active: int = 0
    next_at: float = 0.0  # by the rate
    open_at: float = 0.0  # by its own wish
    silent_in_a_row: int = 0
    free: threading.Condition = field(default_factory=threading.Condition)
    given_up: threading.Event = field(default_factory=threading.Event)


class HostTurns:
    """Turns of one shard's requests at each host.

    An answer within `brisk_s` seconds costs no patience. The time beyond it does, shared by the requests at
    once, and so do the pauses that a host asks for: of `patience_s` seconds in all, and a little more for each
    answer. A host that uses it up, or says nothing twice as many times in a row as it is asked at once, is given
    up, and those who wait for it are told at once: no number of its URLs holds up the others for long.
    """

    def __init__(self, at_once: int, per_s: float | None, patience_s: float, brisk_s: float) -> None:
        self._at_once, self._interval, self._patience_s = at_once, 1 / per_s if per_s else 0.0, patience_s
        self._brisk_s = brisk_s
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a turn and have it. Raises HostGivenUp."""
        host = self._host(name)
        with host.free:
            mine = max(host.next_at, time.monotonic())
            host.next_at = mine + self._interval
        while True:
            while (wait := max(mine, host.open_at) - time.monotonic()) > 0:
                if host.given_up.wait(wait):
                    break
            with host.free:
                while host.active >= self._at_once and not host.given_up.is_set():
                    host.free.wait()
                if host.given_up.is_set():
                    raise HostGivenUp(name)
                if host.open_at <= time.monotonic():
                    host.active += 1
                    break
                host.free.notify()
        try:
            yield
        finally:
            with host.free:
                host.active -= 1
                host.free.notify()

    def answered(self, name: str, seconds: float) -> None:
        """The host gave an answer after so many seconds."""
        host = self._host(name)
        host.silent_in_a_row = 0
        self._charge(host, max(0.0, seconds - self._brisk_s) / self._at_once - _REWARD_S)

    def failed(self, name: str, seconds: float, silent: bool) -> None:
        """The host gave none; `silent` where it let the time run out."""
        host = self._host(name)
        if silent:
            host.silent_in_a_row += 1
        self._charge(host, max(0.0, seconds - self._brisk_s) / self._at_once)

    def pause(self, name: str, seconds: float) -> None:
        """The host asks to be left alone for a while."""
        host = self._host(name)
        now = time.monotonic()
        with host.free:
            longer = max(0.0, now + seconds - max(host.open_at, now))
            host.open_at = max(host.open_at, now + seconds)
        self._charge(host, longer)

    def _charge(self, host: _Host, seconds: float) -> None:
        with host.free:
            host.patience_s -= seconds
            if host.patience_s < 0 or host.silent_in_a_row >= 2 * self._at_once:
                host.given_up.set()
                host.free.notify_all()

    def _host(self, name: str) -> _Host:
        with self._lock:
            return self._hosts.setdefault(name, _Host(self._patience_s))
