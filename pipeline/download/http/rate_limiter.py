"""Rate limits and circuit breakers: how many requests a host gets at once and a second, and when it
gets no more.

Knows names and seconds; knows nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CREDIT_S = 0.25  # patience that an answer earns: in the long run a host has to be brisk, or give 4 a second


class HostUnavailable(Exception):
    """A host that cost too much waiting: it is asked no more for now."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a request comes to a host. Each route has a circuit breaker of its own, so that a dead
    port does not close the others, and failures of redirected requests do not count against a host
    that the table does not name."""

    host: str
    port: int = 0
    redirected_by: str = ""  # the host that the table names, where that is another one


@dataclass(slots=True)
class _Limit:
    """Of one host, whatever the route. Redirected requests wait apart: where the table names the
    host too, they get half of its turns at most."""

    named: bool = False  # by the table
    active: int = 0
    redirected: int = 0  # of the active ones
    next_at: float = 0.0  # by the rate
    lock: threading.Lock = field(default_factory=threading.Lock)
    free: threading.Condition = field(init=False)
    free_for_redirected: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self.free, self.free_for_redirected = (
            threading.Condition(self.lock),
            threading.Condition(self.lock),
        )

    def wake_one(self) -> None:
        self.free.notify()
        self.free_for_redirected.notify()

    def wake_all(self) -> None:
        self.free.notify_all()
        self.free_for_redirected.notify_all()


@dataclass(slots=True)
class _Breaker:
    """Of one route."""

    wait_budget_s: float
    resumes_at: float = 0.0  # by the host's own wish
    timeouts_in_a_row: int = 0
    opened: threading.Event = field(default_factory=threading.Event)


class HostRateLimiter:
    """Turns of one shard's requests at each host.

    An answer within `brisk_s` seconds costs no patience. The time beyond it does, shared by the
    requests at once, and so do the pauses that a host asks for: of `wait_budget_s` seconds in all,
    and a little more for each answer. A route that uses it up, or says nothing twice as many times
    in a row as its host is asked at once, is given up, and those who wait for it are told at once:
    no number of its URLs holds up the others for long.
    """

    def __init__(
        self, at_once: int, per_s: float | None, wait_budget_s: float, brisk_s: float
    ) -> None:
        self._at_once, self._interval, self._wait_budget_s = (
            at_once,
            1 / per_s if per_s else 0.0,
            wait_budget_s,
        )
        self._redirected_at_once = max(1, at_once // 2)
        self._brisk_s = brisk_s
        self._limits: dict[str, _Limit] = {}
        self._breakers: dict[Route, _Breaker] = {}
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, route: Route) -> Iterator[None]:
        """Wait for a turn and have it. Raises HostUnavailable."""
        limit, breaker = self._limit(route.host), self._breaker(route)
        redirected = bool(route.redirected_by)
        self._wait_for_slot(limit, breaker, redirected)
        try:
            yield
        finally:
            with limit.lock:
                limit.active -= 1
                limit.redirected -= redirected
                limit.wake_one()

    def _wait_for_slot(self, limit: _Limit, breaker: _Breaker, redirected: bool) -> None:
        with limit.lock:
            starts_at = max(limit.next_at, time.monotonic())
            limit.next_at = starts_at + self._interval
            limit.named |= not redirected
        free = limit.free_for_redirected if redirected else limit.free
        while True:
            while (wait := max(starts_at, breaker.resumes_at) - time.monotonic()) > 0:
                if breaker.opened.wait(wait):
                    break
            with limit.lock:
                while not breaker.opened.is_set() and not self._has_room(limit, redirected):
                    free.wait()
                if breaker.opened.is_set():
                    limit.wake_one()  # this turn is for somebody else
                    raise HostUnavailable
                if breaker.resumes_at <= time.monotonic():
                    limit.active += 1
                    limit.redirected += redirected
                    return
                limit.wake_one()

    def _has_room(self, limit: _Limit, redirected: bool) -> bool:
        redirected_limit = self._redirected_at_once if redirected and limit.named else self._at_once
        return limit.active < self._at_once and (
            not redirected or limit.redirected < redirected_limit
        )

    def answered(self, route: Route, seconds: float) -> None:
        """The host gave an answer after so many seconds."""
        self._breaker(route).timeouts_in_a_row = 0
        self._charge(route, max(0.0, seconds - self._brisk_s) / self._at_once - _CREDIT_S)

    def failed(self, route: Route, seconds: float, silent: bool) -> None:
        """The host gave none; `silent` where it let the time run out."""
        if silent:
            self._breaker(route).timeouts_in_a_row += 1
        self._charge(route, max(0.0, seconds - self._brisk_s) / self._at_once)

    def pause(self, route: Route, seconds: float) -> None:
        """The host asks to be left alone for a while."""
        limit, breaker, now = self._limit(route.host), self._breaker(route), time.monotonic()
        with limit.lock:
            longer = max(0.0, now + seconds - max(breaker.resumes_at, now))
            breaker.resumes_at = max(breaker.resumes_at, now + seconds)
        self._charge(route, longer)

    def _charge(self, route: Route, seconds: float) -> None:
        limit, breaker = self._limit(route.host), self._breaker(route)
        with limit.lock:
            breaker.wait_budget_s -= seconds
            if breaker.wait_budget_s < 0 or breaker.timeouts_in_a_row >= 2 * self._at_once:
                breaker.opened.set()
                limit.wake_all()

    def _limit(self, host: str) -> _Limit:
        with self._lock:
            return self._limits.setdefault(host, _Limit())

    def _breaker(self, route: Route) -> _Breaker:
        with self._lock:
            return self._breakers.setdefault(route, _Breaker(self._wait_budget_s))
