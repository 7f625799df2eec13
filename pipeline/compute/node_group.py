"""The group of nodes that train one model together: their numbers, heartbeats, job and outcomes.

The node that hosts the rendezvous is node 0 and leads; the others number themselves in the order in
which they come. Each node writes a record of itself to the store and reads those of the others.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pipeline.compute.polling import wait_until
from pipeline.compute.rendezvous import NODES_TIMEOUT_S, NodesApart, Rendezvous, connect_store
from pipeline.config.launch import LaunchConfig

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing in its __all__

_HEARTBEAT_S = 0.5
# A node without a heartbeat for this long counts as lost. One that was killed is noticed earlier,
# by its closed connections.
_SILENCE_S = 30.0
_ENDING_SILENCE_S = 3.0  # the same once the training is ending
_END_WAIT_S = 10.0  # how long to wait for the outcomes of the other nodes


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
        deadline = time.monotonic() + NODES_TIMEOUT_S
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
                    f"within {NODES_TIMEOUT_S / 60:.0f} minutes; run the same command on every node"
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
            wait_until(lambda: not self._others_running(), _END_WAIT_S, every_s=0.1)
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
def node_group(launch: LaunchConfig, rendezvous: Rendezvous, *, leads: bool) -> Iterator[Nodes]:
    """Join the rendezvous and send heartbeats until the end of the block. Raises NodesApart."""
    if launch.nodes == 1:
        yield Nodes(0, launch, rendezvous)
        return
    store = connect_store(rendezvous)
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
