"""What is on its way to MLflow: sent in order, kept where the server is away, and tried again later.

It is in memory: a kill of this process loses what was not sent. The files of a stage lose nothing by that; of training
its metrics are in events.jsonl too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow.exceptions import MlflowException
from requests import RequestException

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
_MOST_KEPT = 100_000  # then the oldest go


@dataclass(slots=True)
class Outbox:
    """Messages to one server. `say` tells a person when it goes away, and when it is back."""

    say: Callable[[str], None]
    lost: int = 0
    _waiting: deque[Callable[[], object]] = field(default_factory=deque)
    _away: str = ""  # why the last attempt failed
    _pause_s: float = _FIRST_PAUSE_S
    _next_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, send: Callable[[], object]) -> None:
        """Send it after all before it: now, or when the server is back. Never raises for a server that is away."""
        with self._lock:
            self._waiting.append(send)
            while len(self._waiting) > _MOST_KEPT:
                self._waiting.popleft()
                self.lost += 1
            if time.monotonic() >= self._next_at:
                self._send()

    def drain(self, patience_s: float) -> int:
        """Send what waits, for so long at most; how many could not be sent."""
        give_up = time.monotonic() + patience_s
        with self._lock:
            while self._waiting and not self._send() and time.monotonic() < give_up:
                time.sleep(min(self._pause_s, max(0.0, give_up - time.monotonic())))
            return len(self._waiting) + self.lost

    def _send(self) -> bool:
        """Whether all went."""
        while self._waiting:
            try:
                self._waiting[0]()
            except (MlflowException, RequestException, OSError) as error:
                if not is_away(error):
                    raise
                self._is_away()
                return False
            self._waiting.popleft()
        if self._away:
            self._away, self._pause_s = "", _FIRST_PAUSE_S
            self.say("MLflow is back, and knows all that was kept for it")
        return True

    def _is_away(self) -> None:
        if not self._away:
            self._away = "away"
            self.say("warning: MLflow does not answer; the work goes on, and what it should know is kept for it")
        self._next_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def is_away(error: BaseException | None) -> bool:
    """Whether an error says that no server answered."""
    while error is not None:
        if isinstance(error, RequestException | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
