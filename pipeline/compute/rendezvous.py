"""The rendezvous of machines that train one model together.

The machine that the rendezvous names hosts a store there (torch's TCPStore, as torchrun does), is
node 0 and leads. The nodes communicate through this store (node_group.py).

This replaces torchrun's agent (elastic_launch). child_processes.py already handles locks, logs and
process groups, so an agent would only add restarts, and a training that resumes from its
checkpoints is restarted as a whole, by running the same command. The environment of a rank is that
of torchrun (ranks.py).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from pipeline.config.launch import LaunchConfig

# torch reads this when it is imported. A lost store is reported here instead, in one line.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing in its __all__

NODES_TIMEOUT_S = 600.0  # how long to wait for nodes that have not come yet
_RETRY_S = 0.5


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


def connect_store(rendezvous: Rendezvous) -> TCPStore:
    """Wait until the store is hosted, and connect to it. A plain connection is tried first, because
    torch prints pages of output for each refused one. Raises NodesApart."""
    deadline = time.monotonic() + NODES_TIMEOUT_S
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
            time.sleep(_RETRY_S)
        except RuntimeError as error:
            raise NodesApart(
                f"the program that listens at {rendezvous} is not a training; choose another port"
            ) from error
