"""The rendezvous of machines that train one model together, and the group of nodes that they form.

The machine that the rendezvous names hosts a store there (torch's TCPStore, as torchrun does), is
node 0 and leads. The other nodes number themselves in the order in which they come. Each node
writes a record of itself to the store and reads those of the others.

This replaces torchrun's agent (elastic_launch). child_processes.py already handles locks, logs and
process groups, so an agent would only add restarts, and a training that resumes from its
checkpoints is restarted as a whole, by running the same command. The environment of a rank is that
of torchrun (ranks.py).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import BaseModel

from pipeline.config.train import LaunchConfig

# torch reads this when it is imported. A lost store is reported here instead, in one line.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing in its __all__

_TIMEOUT_S = 600.0  # how long to wait for nodes that have not come yet
_HEARTBEAT_S = 0.5
# A node without a heartbeat for this long counts as lost. One that was killed is noticed earlier,
# by its closed connections.
_SILENCE_S = 30.0
_ENDING_SILENCE_S = 3.0  # the same once the training is ending
_END_WAIT_S = 10.0  # how long to wait for the outcomes of the other nodes


class NodesApart(RuntimeError):
    """Nodes did not meet, or lost each other; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of a training find each other."""

    host: str
    port: int
    hosted_here: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@contextmanager
def rendezvous_of(launch: LaunchConfig) -> Iterator[Rendezvous]:
    """The rendezvous of the settings. If it names this machine and no other process hosts it, it is
    hosted here as long as the context is entered. Raises NodesApart."""
    host, port = launch.meeting_place
    if launch.ranks == 1:
        yield Rendezvous(host, port, hosted_here=True)
        return
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise NodesApart(
                f"cannot listen at {host}:{port}, train.launch.rendezvous: {error.strerror}"
            ) from error
        yield Rendezvous(host, port, hosted_here=False)
        return
    port = listener.getsockname()[1]
    # Without this listener, torch's store would listen on every address of the machine.
    store = TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    try:
        yield Rendezvous(host, port, hosted_here=True)
    finally:
        del store


class _NodeRecord(BaseModel):
    """What a node publishes about itself for the others."""

    name: str
    beat: int = 0
    job: str | None = None
    """The job of the training; set by the leading node only."""
    is_ready: bool = False
    end: str | None = None
    """How its part ended; empty means success."""


@dataclass(frozen=True, slots=True)
class _OtherNode:
    record: _NodeRecord
    at: float


@dataclass(slots=True)
class Nodes:
    """This node among the nodes of a training. A thread communicates with the store, so that a dead
    network blocks no other thread."""

    number: int
    launch: LaunchConfig
    rendezvous: Rendezvous
    store: TCPStore | None = None
    _own: _NodeRecord = field(default_factory=lambda: _NodeRecord(name=socket.gethostname()))
    # Replaced as a whole and never changed in place, because a thread does it.
    _others: dict[int, _OtherNode] = field(default_factory=dict)
    _answered_at: float = field(default_factory=time.monotonic)  # when the store last answered
    _store_lost: bool = False
    _leaving: threading.Event = field(default_factory=threading.Event)

    def share(self, job: str, waiting: Callable[[int], None]) -> None:
        """On the leading node: publish the job and wait until all other nodes are ready. `waiting`
        is called with the number of missing nodes. Raises NodesApart."""
        self._own.job, self._own.is_ready = job, True
        deadline = time.monotonic() + _TIMEOUT_S
        while (
            missing := self.launch.nodes
            - 1
            - sum(other.record.is_ready for other in self._others.values())
        ):
            waiting(missing)
            if why := self.lost():
                raise NodesApart(why)
            if time.monotonic() > deadline:
                raise NodesApart(
                    f"{missing} of {self.launch.nodes} nodes did not come to {self.rendezvous} "
                    f"within {_TIMEOUT_S / 60:.0f} minutes; run the same command on every node"
                )
            time.sleep(0.1)

    def job(self) -> str:
        """On another node: wait for the job of the leading node, which may first download for
        days. Raises NodesApart."""
        while not (leader := self._others.get(0)) or not leader.record.job:
            if why := self.lost():
                raise NodesApart(why)
            time.sleep(0.1)
        return leader.record.job

    def ready(self) -> None:
        """Report that this node is ready to start."""
        self._own.is_ready = True

    def lost(self, silence_s: float = _SILENCE_S) -> str:
        """The other nodes that have failed or stopped responding, as far as is known here, one line
        each; or ""."""
        lines = []
        for number, other in sorted(self._others.items()):
            name = f"node {number + 1} of {self.launch.nodes} ({other.record.name})"
            if other.record.end:
                lines.append(f"{name} {other.record.end}")
            elif other.record.end is None and self._is_gone(number, other, silence_s):
                lines.append(
                    f"{name} is gone: its command was killed, or its machine or network is down"
                )
        silent = self.number > 0 and time.monotonic() - self._answered_at > silence_s
        if 0 not in self._others and (self._store_lost or silent):
            lines.append(
                f"the command that leads at {self.rendezvous} ended, or its machine or network is "
                "down"
            )
        return "\n".join(lines)

    def _is_gone(self, number: int, other: _OtherNode, silence_s: float) -> bool:
        return time.monotonic() - other.at > silence_s or (number == 0 and self._store_lost)

    def end(self, outcome: str) -> str:
        """Report how this node's part ended, wait for the others, and return their failures as
        `lost` does."""
        if self._own.end is None:
            self._own.end = outcome
            deadline = time.monotonic() + _END_WAIT_S
            while self._others_running() and time.monotonic() < deadline:
                time.sleep(0.1)
        return self.lost(_ENDING_SILENCE_S)

    def _others_running(self) -> bool:
        """Whether any other node has not reported its end yet."""
        return not self._store_lost and any(
            other.record.end is None and not self._is_gone(number, other, _ENDING_SILENCE_S)
            for number, other in self._others.items()
        )

    def leave(self) -> None:
        """Send a last heartbeat and stop."""
        self._leaving.set()

    def keep_in_touch(self) -> None:
        """Send heartbeats until this node leaves."""
        while not self._store_lost:
            is_last = self._leaving.wait(_HEARTBEAT_S)
            self._exchange()
            if is_last:
                return

    def _exchange(self) -> None:
        assert self.store
        self._own.beat += 1
        try:
            self.store.set(f"node/{self.number}", self._own.model_dump_json())
            for number in set(range(self.launch.nodes)) - {self.number}:
                if self.store.check([f"node/{number}"]):
                    record = _NodeRecord.model_validate_json(self.store.get(f"node/{number}"))
                    if number not in self._others or record != self._others[number].record:
                        self._others = {
                            **self._others,
                            number: _OtherNode(record, time.monotonic()),
                        }
            self._answered_at = time.monotonic()
        except RuntimeError:  # of many kinds: the store ended with the command of the leading node
            self._store_lost = True


@contextmanager
def node_group(launch: LaunchConfig, rendezvous: Rendezvous, leads: bool) -> Iterator[Nodes]:
    """Join the rendezvous and send heartbeats until the end of the block. Raises NodesApart."""
    if launch.nodes == 1:
        yield Nodes(0, launch, rendezvous)
        return
    store = _connect(rendezvous)
    me = f"{socket.gethostname()}/{os.getpid()}"
    if leads and store.compare_set("leader", "", me).decode() != me:
        raise NodesApart(
            f"another training is led at {rendezvous}; wait for it, or choose another "
            "train.launch.rendezvous"
        )
    number = 0 if leads else store.add("nodes", 1)
    if number >= launch.nodes:
        raise NodesApart(
            f"{launch.nodes} nodes are at {rendezvous} already; end one of them. If one was "
            "killed, stop the command that leads, and run the same command on every node again: "
            "finished work is kept"
        )
    nodes = Nodes(number, launch, rendezvous, store)
    thread = threading.Thread(target=nodes.keep_in_touch, daemon=True)
    thread.start()
    try:
        yield nodes
        nodes.end("")
    except Exception as error:
        nodes.end(how_it_failed(error))
        raise
    except BaseException:
        nodes.end("was stopped")
        raise
    finally:
        nodes.leave()
        thread.join(_ENDING_SILENCE_S)


def how_it_failed(error: Exception) -> str:
    """An error as a node reports it to the others, in one line."""
    return f"failed: {str(error).partition(chr(10))[0]}"


def _connect(rendezvous: Rendezvous) -> TCPStore:
    """Wait until the store is hosted, and connect to it. A plain connection is tried first, because
    torch prints pages of output for each refused one. Raises NodesApart."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            socket.create_connection((rendezvous.host, rendezvous.port), timeout=5).close()
            return TCPStore(
                rendezvous.host,
                rendezvous.port,
                is_master=False,
                wait_for_workers=False,
                timeout=timedelta(seconds=30),
            )
        except OSError as error:
            if time.monotonic() > deadline:
                raise NodesApart(
                    f"no command leads at {rendezvous} ({error.strerror or error}); run the same "
                    "command on that machine"
                ) from None
            time.sleep(_HEARTBEAT_S)
        except RuntimeError as error:
            raise NodesApart(
                f"the program that listens at {rendezvous} is not a training; choose another port"
            ) from error
