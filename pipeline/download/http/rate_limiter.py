"""Per-host rate limiting with a circuit breaker.

A host gets a limited number of requests at once and per second. The circuit breaker of a route
opens when waiting for it has cost too much; then it gets no more requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Wait budget that an answer earns. In the long run a host must answer within `brisk_s`, or four
# requests per second.
_CREDIT_S = 0.25


class HostUnavailable(Exception):
    """The circuit breaker of this route is open, because waiting for it has cost too much."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a request reaches a host: its port, and the host that redirected it. Each route has its
    own circuit breaker, so a dead port does not affect the others, and failures of redirected
    requests do not count against the requests that the table itself makes."""

    host: str
    port: int = 0
    redirected_by: str = ""  # the host in the table, if it is another one


@dataclass(slots=True)
class _Limit:
    """The limits of one host, over all routes. Redirected requests wait separately: if the table
    names the host too, they get at most half of its slots."""

    named: bool = False  # whether the table names it
    active: int = 0
    redirected: int = 0  # number of active requests that were redirected
    next_at: float = 0.0  # when the rate allows the next request
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
    """The circuit breaker of one route."""

    wait_budget_s: float
    resumes_at: float = 0.0  # until when the host asked us to wait
    timeouts_in_a_row: int = 0
    opened: threading.Event = field(default_factory=threading.Event)


class HostRateLimiter:
    """Limits the requests of one shard to each host.

    Each route has a budget of `wait_budget_s` seconds, and a little more for each answer. An answer
    within `brisk_s` seconds costs nothing; the time beyond it does, divided by `at_once`, and so do
    the pauses that a host asks for. The circuit breaker of a route opens when its budget is used
    up, or after 2 * `at_once` timeouts in a row. Requests that wait for it then fail immediately,
    so no number of URLs at one host delays the others for long.
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
        """Wait for a slot and hold it. Raises HostUnavailable if the circuit breaker is open."""
        limit, breaker = self._limit(route.host), self._breaker(route)
        redirected = bool(route.redirected_by)
        self._wait_for_slot(limit, breaker, redirected=redirected)
        try:
            yield
        finally:
            with limit.lock:
                limit.active -= 1
                limit.redirected -= redirected
                limit.wake_one()

    def _wait_for_slot(self, limit: _Limit, breaker: _Breaker, *, redirected: bool) -> None:
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
                while not breaker.opened.is_set() and not self._has_room(
                    limit, redirected=redirected
                ):
                    free.wait()
                if breaker.opened.is_set():
                    limit.wake_one()  # another request may take this slot
                    raise HostUnavailable
                if breaker.resumes_at <= time.monotonic():
                    limit.active += 1
                    limit.redirected += redirected
                    return
                limit.wake_one()

    def _has_room(self, limit: _Limit, *, redirected: bool) -> bool:
        redirected_limit = self._redirected_at_once if redirected and limit.named else self._at_once
        return limit.active < self._at_once and (
            not redirected or limit.redirected < redirected_limit
        )

    def answered(self, route: Route, seconds: float) -> None:
        """Record that the host answered after this many seconds."""
        self._breaker(route).timeouts_in_a_row = 0
        self._charge(route, max(0.0, seconds - self._brisk_s) / self._at_once - _CREDIT_S)

    def failed(self, route: Route, seconds: float, *, silent: bool) -> None:
        """Record that the host did not answer; `silent` if the request timed out."""
        if silent:
            self._breaker(route).timeouts_in_a_row += 1
        self._charge(route, max(0.0, seconds - self._brisk_s) / self._at_once)

    def pause(self, route: Route, seconds: float) -> None:
        """Record that the host asked for a pause."""
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
