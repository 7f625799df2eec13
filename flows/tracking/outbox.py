"""A background queue for MLflow: a thread sends messages in order, so stages never wait for the
server.

While the server is unreachable, messages are buffered in memory. What is left at the end of a run
goes to a file, and the next run sends it. If this process is killed, its unsent messages are lost.
The outputs of a stage lose nothing by that, and the metrics of training are in events.jsonl too.

A run that begins while the server is unreachable has an id of ours until the server assigns one.
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

_INTERVAL_S = 1.0  # metrics of this period are sent together
_BATCH = 500  # metrics per request
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
_MOST_BUFFERED = 100_000  # then the oldest messages are dropped
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """Something to record in a run; its body is a JSON value."""

    run_id: str
    kind: Literal[
        "create", "params", "inputs", "config", "metrics", "tags", "artifact", "image", "end"
    ]
    body: Any


class Outbox:
    """A queue of messages to one server. `deliver` sends a message, and returns the id of a run
    that it creates. `say` prints when the server becomes unreachable, and when it is back.
    `buffer` is the file of messages that could not be sent."""

    def __init__(
        self, deliver: Callable[[Message], object], buffer: Path, say: Callable[[str], None]
    ) -> None:
        self._deliver, self._buffer, self._say = deliver, buffer, say
        self._ids: dict[str, str] = {}  # our ids -> those that the server assigned
        self._away = False
        self._taken = _take_over(buffer)
        self._waiting = deque(message for file in self._taken.values() for message in _read(file))
        self._sending: Message | None = None
        self._lost = 0
        self._drains = 0  # number of calls so far
        self._draining = False
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="outbox", daemon=True).start()

    def put(self, message: Message) -> None:
        """Queue a message. Returns at once, and raises no error of the server."""
        with self._changed:
            self._waiting.append(message)
            if len(self._waiting) > _MOST_BUFFERED:
                self._waiting.popleft()
                self._lost += 1
            self._changed.notify_all()

    @property
    def server_is_away(self) -> bool:
        """Whether the server was unreachable for the last message."""
        return self._away

    def id_of(self, run_id: str) -> str:
        """The server's id of a run."""
        return self._ids.get(run_id, run_id)

    def drain(self, timeout_s: float) -> bool:
        """Wait until all messages are sent, up to a timeout. Returns whether they are."""
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
        """Send what is left. What cannot be sent within the timeout, or until an interrupt, is
        written to the file for the next run."""
        try:
            self.drain(timeout_s)
        finally:
            with self._changed:
                unsent = [*([self._sending] if self._sending else []), *self._waiting]
                self._closed = True
                self._waiting.clear()
                self._changed.notify_all()
            if self._lost:
                self._say(
                    f"warning: MLflow was unreachable for too long: its oldest {self._lost} "
                    "messages are lost; the outputs of all stages are complete"
                )
            if unsent:
                self._write_buffer(unsent)
            # Only now, so that a kill does not lose the messages of earlier runs.
            for path, file in self._taken.items():
                path.unlink(missing_ok=True)
                file.close()

    def _write_buffer(self, unsent: list[Message]) -> None:
        try:
            with locked(self._buffer, _LOCK_TIMEOUT_S) as file:
                file.writelines(
                    f"{json.dumps(asdict(self._readdressed(message)))}\n" for message in unsent
                )
        except (OSError, LockTimeout) as error:
            self._say(
                f"warning: MLflow did not come back: {len(unsent)} messages to it are lost "
                f"({error}); the outputs of all stages are complete"
            )
        else:
            self._say(
                f"warning: MLflow did not come back: the next run sends it {len(unsent)} messages "
                f"from {self._buffer}"
            )

    def _work(self) -> None:
        """Send until closed. Messages that the server refuses are not retried, and fail no run."""
        pause_s, was_away, was_refused = _FIRST_PAUSE_S, False, False
        while message := self._next():
            error = self._attempt(message)
            away = is_away(error)
            refused = error is not None and not away
            if away and not was_away:
                self._say("warning: MLflow is unreachable; continuing, and buffering its messages")
            if was_away and not away:
                self._say("MLflow is back; sending the buffered messages")
            if refused and not was_refused:  # on a full disk it refuses one after the other
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
            run_id = self._deliver(self._readdressed(message))
        except Exception as error:
            return error
        if message.kind == "create":
            self._ids[message.run_id] = str(run_id)
        return None

    def _readdressed(self, message: Message) -> Message:
        """A message with the server's ids; the tags of a new run may contain its parent's id."""
        body = message.body
        if message.kind == "create":
            body = {
                **body,
                "tags": {name: self.id_of(value) for name, value in body["tags"].items()},
            }
        return Message(self.id_of(message.run_id), message.kind, body)

    def _next(self) -> Message | None:
        """The message to send next; None when closed."""
        with self._changed:
            self._sending = None
            self._changed.notify_all()
            if not self._waiting:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._draining or self._closed, _INTERVAL_S)
            if self._closed:
                return None
            self._sending = self._batch()
            return self._sending

    def _batch(self) -> Message:
        """The first message; metrics together with the metrics of the same run that follow."""
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
        """Wait before the next attempt. If `drain` is called meanwhile, the attempt is made at
        once."""
        with self._changed:
            if self._closed:
                return
            self._waiting.appendleft(message)
            self._sending = None
            drains = self._drains
            self._changed.wait_for(lambda: self._drains > drains or self._closed, pause_s)


def is_away(error: BaseException | None) -> bool:
    """Whether an error means that the server is unreachable."""
    while error is not None:
        if isinstance(error, RequestException | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _take_over(buffer: Path) -> dict[Path, TextIO]:
    """The files of messages that earlier runs could not send, locked while this process lives, so
    that only one process sends each. Files that a killed run had taken over are among them."""
    taken: dict[Path, TextIO] = {}
    for path in (buffer, *buffer.parent.glob(f"{buffer.name}.*")):
        if file := try_lock(path):
            if path == buffer:  # runs that end meanwhile start a new one
                path = path.rename(buffer.with_name(f"{buffer.name}.{uuid.uuid4().hex}"))
            taken[path] = file
    return taken


def _read(file: TextIO) -> Iterator[Message]:
    """The messages of a file, without lines that a full or failing disk has damaged."""
    for line in file.read().splitlines():
        with suppress(ValueError, TypeError):
            yield Message(**json.loads(line))
