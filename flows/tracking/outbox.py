"""What is on its way to MLflow: sent in order by a thread of its own, so that no stage waits for a
server.

While the server is away, messages are kept in memory; what is left at the end of a run goes to a
file, and the next run sends it. A kill of this process loses what it had not sent of its own. The
files of a stage lose nothing by that; of training its metrics are in events.jsonl too.

A run that begins while the server is away has an id of ours, until the server gives it another.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from requests import RequestException

from data_catalog.storage.file_lock import LockTimeout, locked, try_lock

_RHYTHM_S = 1.0  # metrics of so long go together
_BATCH = 500  # metrics a request
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
_MOST_KEPT = 100_000  # then the oldest go
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a run shall know; its body is in words that JSON has."""

    run_id: str
    kind: Literal["create", "params", "inputs", "config", "metrics", "tags", "artifact", "end"]
    body: Any


class Outbox:
    """Messages to one server. `deliver` sends one, and returns the id of a run that it creates;
    `say` tells a person when the server goes, and when it is back."""

    def __init__(
        self, deliver: Callable[[Message], object], kept: Path, say: Callable[[str], None]
    ) -> None:
        self._deliver, self._kept, self._say = deliver, kept, say
        self._ids: dict[str, str] = {}  # those that the server gave instead of ours
        self._away = False
        self._taken = _take_back(kept)
        self._waiting = deque(message for file in self._taken.values() for message in _read(file))
        self._sending: Message | None = None
        self._lost = 0
        self._drains = 0  # so far
        self._draining = False
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="outbox", daemon=True).start()

    def put(self, message: Message) -> None:
        """Send it soon, after all before it. Returns at once, and never raises for a server."""
        with self._changed:
            self._waiting.append(message)
            if len(self._waiting) > _MOST_KEPT:
                self._waiting.popleft()
                self._lost += 1
            self._changed.notify_all()

    @property
    def server_is_away(self) -> bool:
        """Whether the last message found no server."""
        return self._away

    def id_of(self, run_id: str) -> str:
        """The id that the server knows a run by."""
        return self._ids.get(run_id, run_id)

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is sent, for so long at most; whether it is."""
        with self._changed:
            self._drains += 1
            self._draining = True
            self._changed.notify_all()
            sent = self._changed.wait_for(
                lambda: not self._waiting and not self._sending, timeout_s
            )
            self._draining = False
        return sent

    def close(self, timeout_s: float) -> None:
        """The last of it: what cannot be sent in time, or until an interrupt, is kept for the next
        run."""
        try:
            self.drain(timeout_s)
        finally:
            with self._changed:
                left = [*([self._sending] if self._sending else []), *self._waiting]
                self._closed = True
                self._waiting.clear()
                self._changed.notify_all()
            if self._lost:
                self._say(
                    f"warning: MLflow was away for long: its oldest {self._lost} messages are "
                    "lost, no output is"
                )
            if left:
                self._keep(left)
            for (
                path,
                file,
            ) in (
                self._taken.items()
            ):  # not before: a kill must not lose what an earlier run had kept
                path.unlink(missing_ok=True)
                file.close()

    def _keep(self, left: list[Message]) -> None:
        try:
            with locked(self._kept, _LOCK_TIMEOUT_S) as file:
                file.writelines(
                    f"{json.dumps(asdict(self._readdressed(message)))}\n" for message in left
                )
        except (OSError, LockTimeout) as error:
            self._say(
                f"warning: MLflow did not come back: {len(left)} messages to it are lost, no "
                f"output is ({error})"
            )
        else:
            self._say(
                f"warning: MLflow did not come back: the next run sends it {len(left)} messages, "
                f"of {self._kept}"
            )

    def _work(self) -> None:
        """Send until closed. What the server refuses is not tried again: no run fails of that."""
        pause_s, was_away, was_refused = _FIRST_PAUSE_S, False, False
        while message := self._next():
            error = self._attempt(message)
            away = is_away(error)
            refused = error is not None and not away
            if away and not was_away:
                self._say(
                    "warning: MLflow does not answer; the work goes on, and what it should know is "
                    "kept"
                )
            if was_away and not away:
                self._say("MLflow is back, and is told all that was kept for it")
            if refused and not was_refused:  # on a full disk it is one after the other
                self._say(
                    f"warning: MLflow refuses {message.kind} of run {message.run_id}: "
                    f"{str(error)[:500]}"
                )
            if away:
                self._put_back(message, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if away else _FIRST_PAUSE_S
            was_away, was_refused, self._away = away, refused, away

    def _attempt(self, message: Message) -> Exception | None:
        try:
            made = self._deliver(self._readdressed(message))
        except Exception as error:
            return error
        if message.kind == "create":
            self._ids[message.run_id] = str(made)
        return None

    def _readdressed(self, message: Message) -> Message:
        """A message with the server's ids; the run that it creates may lie below another one."""
        body = message.body
        if message.kind == "create":
            body = {
                **body,
                "tags": {name: self.id_of(value) for name, value in body["tags"].items()},
            }
        return Message(self.id_of(message.run_id), message.kind, body)

    def _next(self) -> Message | None:
        """What to send now; None when closed."""
        with self._changed:
            self._sending = None
            self._changed.notify_all()
            if not self._waiting:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._draining or self._closed, _RHYTHM_S)
            if self._closed:
                return None
            self._sending = self._batch()
            return self._sending

    def _batch(self) -> Message:
        """The first message; of metrics also those of the same run that follow."""
        first = self._waiting.popleft()
        if first.kind != "metrics":
            return first
        body = list(first.body)
        while self._waiting:
            following = self._waiting[0]
            if (following.run_id, following.kind) != (first.run_id, "metrics") or len(
                body
            ) >= _BATCH:
                break
            body += self._waiting.popleft().body
        return Message(first.run_id, "metrics", body)

    def _put_back(self, message: Message, pause_s: float) -> None:
        """Wait before the next attempt, unless someone waits for all to be sent: then one is made
        at once."""
        with self._changed:
            if self._closed:
                return
            self._waiting.appendleft(message)
            self._sending = None
            so_far = self._drains
            self._changed.wait_for(lambda: self._drains > so_far or self._closed, pause_s)


def is_away(error: BaseException | None) -> bool:
    """Whether an error says that no server answered."""
    while error is not None:
        if isinstance(error, RequestException | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _take_back(kept: Path) -> dict[Path, TextIO]:
    """The files of what earlier runs could not send, locked while this process lives; of two at
    once one takes each. Also those that a run had taken when it was killed."""
    taken: dict[Path, TextIO] = {}
    for path in (kept, *kept.parent.glob(f"{kept.name}.*")):
        if file := try_lock(path):
            if path == kept:  # runs that end meanwhile begin it anew
                path = path.rename(kept.with_name(f"{kept.name}.{uuid.uuid4().hex}"))
            taken[path] = file
    return taken


def _read(file: TextIO) -> Iterator[Message]:
    """The messages of a file, but for what a full disk cut off or a failing one changed."""
    for line in file.read().splitlines():
        with suppress(ValueError, TypeError):
            yield Message(**json.loads(line))
