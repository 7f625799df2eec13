"""Ranks: the processes that train one model together, their rows of a batch and their collectives.

train/sharding.py distributes a model over them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from pipeline.compute.child_processes import STOPPED
from pipeline.compute.rendezvous import Rendezvous
from pipeline.config.launch import LaunchConfig

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the address of an interface
# A rank that dies is noticed immediately, through its closed connections and by the parent process.
# This only bounds how long the others wait while rank 0 writes a checkpoint or decodes samples.
_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the ranks of a training."""

    rank: int = 0
    count: int = 1
    agreements: ProcessGroup | None = None  # on the CPU, so that a vote does not wait for a GPU

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which logs, samples and saves."""
        return self.rank == 0

    def rows(self, count: int) -> range:
        """This rank's rows of a global batch of this size."""
        each = count // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def any(self, vote: bool) -> bool:  # noqa: FBT001
        """Whether any rank votes yes; all ranks get the same answer. Every rank must call this."""
        if self.count == 1:
            return vote
        votes = torch.tensor(int(vote))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.agreements)
        return bool(votes)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks. A number that is not finite in one rank is not finite in the
        result."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def as_leader(self, number: int) -> int:
        """The number of rank 0, in all ranks. Every rank must call this."""
        if self.count == 1:
            return number
        result = torch.tensor(number)
        dist.broadcast(result, src=0, group=self.agreements)
        return int(result)


ALONE = Ranks()


def rank_environments(
    launch: LaunchConfig, node: int, rendezvous: Rendezvous
) -> dict[int, dict[str, str]]:
    """Rank -> the environment variables that make a process of this node that rank. The names are
    those of torchrun."""
    shared = (
        {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // launch.processes))}
        if launch.processes > 1
        else {}
    )
    if launch.ranks > 1 and (interface := _interface_towards(rendezvous.host)):
        shared["GLOO_SOCKET_IFNAME"] = interface
    return {
        node * launch.processes + local: {
            **{name: value for name, value in shared.items() if name not in os.environ},
            "RANK": str(node * launch.processes + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(launch.ranks),
            "MASTER_ADDR": rendezvous.host,
            "MASTER_PORT": str(rendezvous.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is already hosted
        }
        for local in range(launch.processes)
    }


def _interface_towards(host: str) -> str | None:
    """The network interface over which a host is reached. By default gloo uses the interface of
    this machine's own name, which on many machines is a loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                request = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(request[20:24]) == own:
                    return name
    return None


@contextmanager
def joined_ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the process group that the environment describes (rank_environments, or torchrun).

    Yields the rank of this process and its device.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if count == 1:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, init_method="env://", timeout=_TIMEOUT)
    try:
        yield Ranks(rank, count, dist.new_group(backend="gloo", timeout=_TIMEOUT)), device
    except SystemExit as end:
        if end.code != STOPPED:
            raise  # after a failure, leaving the group could wait for ranks that are gone
        dist.destroy_process_group()  # otherwise its threads may abort the exit
        raise
    dist.destroy_process_group()


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor, gathered if it is distributed over the ranks; then every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """The tensor, or this rank's shard if it is distributed over the ranks."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
